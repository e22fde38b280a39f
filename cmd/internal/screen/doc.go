// Package screen says to people where a failback stands: the plan that is
// confirmed, the status, the lists, and the region that is drawn again and again
// while somebody watches.
//
// The reader is tired and it is night. The first line of a screen says the state
// in one sentence, the last lines say what to type next, and no line is wider than
// asked for, but for commands, which are copied and never broken.
//
// Everything that a host has said (names, paths, errors) is made printable here;
// nothing of it reaches a terminal as a control character.
//
// What is not promised: that a text stays. Programs read JSON.
package screen
