package vddk

import "github.com/haulback/haulback/vddk/nbd"

func parseNBD(text string) error {
	_, err := nbd.ParseURI(text)
	return err
}
