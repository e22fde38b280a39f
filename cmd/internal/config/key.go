package config

import (
	"fmt"
	"strings"
)

// key describes one key of the configuration, for people and for editors. What it
// says is held against the structs, the defaults and the checks by tests.
type key struct {
	path     string // "host.workload.name"
	form     form
	required bool     // in its table
	def      any      // what holds where the key is missing; nil: nothing, or see defText
	defText  string   // the same in words, where it depends on the machine or another key
	enum     []string // the only values, of a list its entries
	// least and most bound a number, a size or a time; most may be open.
	least, most string
	allowed     string // in words, where neither enum nor least says it
	example     any
	effect      string
}

// form is how a text is written.
type form int

const (
	free form = iota
	sizeForm
	timeForm
	nameForm
)

// patterns are what the schema demands of each form.
var patterns = map[form]string{
	sizeForm: `^[0-9]+ ?(B|KiB|MiB|GiB|TiB)$`,
	timeForm: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`,
	nameForm: `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`,
}

// Words that several keys share.
const (
	aName     = "1 to 63 letters, digits, `.`, `-`, `_`, the first one no sign"
	aPath     = "absolute path"
	aSecret   = "absolute path, or name of a [credential](operation.md#credentials)"
	anAddress = "ADDRESS:PORT"
	aProgram  = "a program by its absolute path, and its arguments"
	peerNames = "names of peers"
	systemCAs = "those of the system"
)

// table is a table of the configuration, or an array of them.
type table struct {
	name   string // "" is the file itself, "host.workload" a table of a table
	reload string // what SIGHUP does with it
	effect string
	keys   []key // by the last part of their path
}

// described is what tables say of a key, by its path without numbers.
func described(path string) *key {
	at, name := "", path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		at, name = path[:i], path[i+1:]
	}
	for _, t := range tables {
		if t.name != at {
			continue
		}
		for i := range t.keys {
			if t.keys[i].path == name {
				return &t.keys[i]
			}
		}
	}
	return nil
}

// bounds is the range of a key as people write it: "1 to 8", "from 64MiB", "on, off".
func (k *key) bounds() string {
	switch {
	case k.least != "" && k.most != "":
		return k.least + " to " + k.most
	case k.least != "":
		return "from " + k.least
	case k.enum != nil:
		return strings.Join(k.enum, ", ")
	}
	return k.allowed
}

// advice is bounds with a value that is good.
func (k *key) advice() string {
	if k.def != nil {
		return fmt.Sprintf("%s, as in %q", k.bounds(), k.def)
	}
	return k.bounds()
}
