package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/bench/workload"
)

// track makes a qcow2 whose data is a raw image that is there already, with a
// dirty bitmap that marks places, as if a guest had written there. What is at
// these places is lost: the caller writes there afterwards.
//
// qemu-img makes the data file itself and would empty one that is there: it is
// given another, which then becomes a second name of the image. All clusters are
// mapped from the beginning, so that the qcow2 reads what the image has.
func (b *bench) track(ctx context.Context, qcow2, image string, places []workload.Place) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	removeTracked(qcow2)
	i, err := os.Stat(image)
	if err != nil {
		return err
	}
	data := qcow2 + ".data"
	if err := command(ctx, "", "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+data+",data_file_raw=on,preallocation=metadata", qcow2, fmt.Sprint(i.Size())); err != nil {
		return err
	}
	if err := errors.Join(os.Remove(data), os.Link(image, data)); err != nil {
		return err
	}
	if err := command(ctx, "", "qemu-img", "bitmap", "--add", "--enable", "-g", "65536", qcow2, peers.Bitmap); err != nil {
		return err
	}
	var script strings.Builder
	for _, p := range places {
		fmt.Fprintf(&script, "write -q -P 1 %d %d\n", p.Off, p.Len)
	}
	return command(ctx, script.String(), "qemu-io", "-f", "qcow2", qcow2)
}

func removeTracked(qcow2 string) {
	_ = os.Remove(qcow2)
	_ = os.Remove(qcow2 + ".data")
}

// command runs a program with a text on its standard input.
func command(ctx context.Context, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
