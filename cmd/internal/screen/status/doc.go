// Package status is the live view of a daemon: the board of package screen on a
// terminal, and the keys that change something.
//
// A Model hears three things: a Board whenever something has changed, keys, and
// the answer to the one verb that may be on its way. It calls nobody but through
// the Doer that it is made with.
//
// Rules of the keys that change something:
//   - each one asks first, and says what goes off and on and what is lost;
//   - an answer is about what was shown. When the item moves on meanwhile the
//     question goes away, and nothing is done. The revision that was shown goes
//     with the call, so that the daemon refuses what the view has not seen yet;
//   - one verb is on its way at a time. A key that repeats finds no question, and
//     a question is answered by a word and Enter, never by one key;
//   - of a daemon that does not answer nothing is asked for.
//
// What is not promised: that the daemon does what the view thinks possible. The
// view refuses early, and the daemon's answer is shown.
package status
