package strict

import "regexp"

const secretWords = `(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|private[_-]?key|api[_-]?key|psk)s?`

var (
	secretName  = regexp.MustCompile(`(?i)` + secretWords + `$`)
	secretValue = regexp.MustCompile(`(?i)([\w.-]*` + secretWords + `["']?\s*[=:,]\s*).+`)
	// To the last @ of the line: a password may have every sign in it.
	secretLogin = regexp.MustCompile(`(://[^\s"'/:@]*:).*@`)
)

// Secret reports whether what a key of this name holds is nobody's business. The
// path of a file that holds it, as in password_file, is no secret.
func Secret(key string) bool { return secretName.MatchString(key) }

// Hidden stands in the place of a secret.
const Hidden = "(redacted)"

// hush is a line of a file without what looks like a secret.
func hush(line string) string {
	return secretLogin.ReplaceAllString(secretValue.ReplaceAllString(line, "${1}"+Hidden), "${1}"+Hidden+"@")
}
