package failback

// SetBug breaks an engine on purpose, for TestFailbackBugsAreFound.
func (e *Engine) SetBug(name string) {
	*map[string]*bool{
		"":                &e.bugs.none,
		"no intent":       &e.bugs.noIntent,
		"blind":           &e.bugs.blind,
		"late terminal":   &e.bugs.lateTerminal,
		"ungated":         &e.bugs.ungated,
		"no mark":         &e.bugs.noMark,
		"trust pass":      &e.bugs.trustPass,
		"keep replica on": &e.bugs.keepReplicaOn,
	}[name] = true
}
