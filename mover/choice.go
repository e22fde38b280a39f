package mover

import "fmt"

// Choice is what an operator says of something that may be measured instead.
type Choice uint8

// The choices; the zero value measures.
const (
	Auto Choice = iota
	On
	Off
)

var choices = [...]string{"auto", "on", "off"}

// String is "auto", "on" or "off".
func (c Choice) String() string {
	if int(c) >= len(choices) {
		return "unknown"
	}
	return choices[c]
}

// ParseChoice is the choice of text for what, as in "refine"; empty is Auto.
func ParseChoice(what, text string) (Choice, error) {
	if text == "" {
		return Auto, nil
	}
	for i, t := range choices {
		if text == t {
			return Choice(i), nil
		}
	}
	return 0, fmt.Errorf("%s %q: auto, on or off", what, text)
}
