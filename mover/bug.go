package mover

// bug is a deliberate mistake. Only tests set one (export_test.go), to prove
// that the suite finds it: a suite that stays green with a bug proves nothing
// (reliability section 5.9b).
type bug uint8

const (
	noBug bug = iota
	bugJournalBeforeFlush
	bugCoverLateWrites
	bugIgnoreFlushError
	bugRetryFlush
	bugNoDrain
	bugNoRecordSum
	bugNoReadBack
	bugNoRunInJournal
	bugAckBeforeFlush
	bugNoMark
	bugNoBinding
	bugNoDigest
	bugLowerEpoch
	bugWarmRead
	bugBelieveHint
	bugAnyBase
	bugNoPartCheck
	bugPartElsewhere
	bugStaleAnswer
	bugCount // keep last
)
