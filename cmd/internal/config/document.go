package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/strict"
)

// document is a configuration as it stands: FILE and its drop-ins, FILE.d/*.toml,
// as one. The directory belongs to the one file, because two daemons share
// /etc/haulback.
type document struct {
	path    string
	dropIns []string
	file    file
	places  strict.Places // of all files
}

// read decodes each file by itself, so that a mistake is told at its own place, and
// then makes one of them, in the order of their names: of a key the last value
// counts, and the tables of an array are added to those before.
func read(path string) (*document, error) {
	names, err := files(path)
	if err != nil {
		return nil, err
	}
	d := &document{path: path, dropIns: names[1:], places: strict.Places{}}
	var errs []error
	for i, name := range names {
		text, err := contents(name, i > 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("configuration: %w", err))
			continue
		}
		f := new(file)
		places, err := strict.Decode(name, text, f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.add(f, places)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// files are FILE and the files of FILE.d that count, in order. What an editor or a
// packager leaves beside them (hidden files, other names) does not.
func files(path string) (names []string, err error) {
	names = []string{path}
	dir := path + ".d"
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return names, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: drop-ins: %w; it is a directory that the daemon may read, or is not there", err)
	}
	for _, e := range entries {
		if name := e.Name(); filepath.Ext(name) == ".toml" && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#") {
			names = append(names, filepath.Join(dir, name))
		}
	}
	return names, nil
}

// maxFile bounds a file in bytes; hundreds of exports take some ten thousand.
const maxFile = 4 << 20

// contents is what a file has in it. A drop-in is no link: nobody who looks into the
// directory must have to look elsewhere.
func contents(name string, dropIn bool) ([]byte, error) {
	flags, remedy := 0, "name another file"
	if dropIn {
		flags, remedy = unix.O_NOFOLLOW, "every name in there that ends in .toml is one, take it out"
	}
	text, err := strict.Read(name, maxFile, flags)
	switch {
	case errors.Is(err, unix.ELOOP) && dropIn:
		err = fmt.Errorf("%s: a link; put the file itself there, or take it out", name)
	case errors.Is(err, fs.ErrNotExist) && !dropIn:
		err = fmt.Errorf("%w; write one there, or name another file", err)
	case errors.Is(err, strict.ErrNotFile):
		err = fmt.Errorf("%s: no file; %s", name, remedy)
	case errors.Is(err, strict.ErrTooLong):
		err = fmt.Errorf("%s: more than %d MiB: no configuration; %s", name, maxFile>>20, remedy)
	}
	return text, err
}

// number is that of a table of an array, at the top of a file.
var number = regexp.MustCompile(`^([a-z]+)\[(\d+)\]`)

// add reads f after what is there.
func (d *document) add(f *file, places strict.Places) {
	to, from := reflect.ValueOf(&d.file).Elem(), reflect.ValueOf(f).Elem()
	count := map[string]int{} // of the tables that each array has so far
	for i := range to.NumField() {
		if to.Field(i).Kind() == reflect.Slice {
			count[tag(to.Type().Field(i))] = to.Field(i).Len()
		}
	}
	merge(to, from, "", places)
	for key, at := range places {
		if m := number.FindStringSubmatch(key); m != nil {
			n, _ := strconv.Atoi(m[2]) // of digits
			key = fmt.Sprintf("%s[%d]%s", m[1], n+count[m[1]], key[len(m[0]):])
		}
		d.places[key] = at
	}
}

// merge puts what stands in from, a struct with toml tags, into to.
func merge(to, from reflect.Value, prefix string, places strict.Places) {
	for i := range to.NumField() {
		key := prefix + tag(to.Type().Field(i))
		a, b := to.Field(i), from.Field(i)
		switch {
		case b.Kind() == reflect.Struct:
			merge(a, b, key+".", places)
		case b.Kind() == reflect.Pointer && b.Type().Elem().Kind() == reflect.Struct:
			if a.IsNil() {
				a.Set(b)
			} else if !b.IsNil() {
				merge(a.Elem(), b.Elem(), key+".", places)
			}
		case b.Kind() == reflect.Slice && b.Type().Elem().Kind() == reflect.Struct:
			a.Set(reflect.AppendSlice(a, b))
		default:
			if _, ok := places[key]; ok {
				a.Set(b)
			}
		}
	}
}

// tag is the key of a field.
func tag(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return name
}
