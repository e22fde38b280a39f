package jobs

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/hostctl/job"
)

// permit looks text, or the path of a disk of this machine, up in the patterns.
func (d *Disks) permit(text, path string) error {
	if d.Allow == nil {
		return nil
	}
	if path != "" {
		if d.path(path) {
			return nil
		}
		return forbidden(text, "")
	}
	what := ""
	for _, p := range d.Allow {
		if p[0] == '/' || !matches(p, text) {
			continue
		}
		file, ok := d.files(p, text)
		if ok {
			return nil
		}
		what = file
	}
	return forbidden(text, what)
}

// path reports whether a pattern allows a path without links.
func (d *Disks) path(path string) bool {
	for _, p := range d.Allow {
		if p[0] == '/' && matches(p, path) {
			return true
		}
	}
	return false
}

// files looks up what a URI names of this machine besides the disk: a socket, a
// password, a library that is loaded. A * that stands for the rest of a URI must
// not stand for these: each is allowed by the pattern's own parameter of that name,
// or by a pattern for paths. It gives the first that is not.
func (d *Disks) files(pattern, text string) (file string, ok bool) {
	_, query, _ := strings.Cut(text, "?")
	own := parameters(pattern) // the ? may be in a *
	for key, value := range parameters(query) {
		if !strings.HasPrefix(value, "/") {
			continue
		}
		path := real(value)
		if p := own[key]; !d.path(path) && (p == "" || !matches(p, path)) {
			return key + "=" + value, false
		}
	}
	return "", true
}

// parameters are those of a query or of a pattern. The drivers refuse one that is
// there twice.
func parameters(query string) map[string]string {
	all := make(map[string]string)
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		key = key[strings.LastIndexAny(key, "*?")+1:]
		if v, err := url.PathUnescape(value); err == nil { // the drivers refuse another
			value = v
		}
		all[key] = value
	}
	return all
}

func forbidden(text, file string) error {
	if file != "" {
		file = "; that it names " + file + " has to be allowed as well: write the parameter into its pattern, or a pattern for the path"
	}
	return refuse(job.ReasonAuth, job.RetryAfterReconcile, exitcode.Auth,
		"%s: jobs of this daemon may not open it; its configuration has the list, [jobs] allow%s", text, file)
}

// matches reports whether the whole of text is pattern, where * is anything.
func matches(pattern, text string) bool {
	expr := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`)
	ok, err := regexp.MatchString(`(?s)^`+expr+`$`, text)
	return err == nil && ok
}

// maxLinks is where the kernel gives up.
const maxLinks = 40

// real is path without links, as the kernel walks it: .. is of the directory that
// a link leads to, and a link to what is not there yet is followed too.
func real(path string) string {
	done, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, name)
		to, err := os.Readlink(next)
		if err != nil { // no link, or nothing that can be opened
			done = next
			continue
		}
		if links++; links > maxLinks {
			return next // it cannot be opened
		}
		if filepath.IsAbs(to) {
			done = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done
}
