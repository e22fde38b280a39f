package osd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/haulback/haulback/hostctl"
)

// Swept is what became of a row that nobody owned.
type Swept struct {
	Profile string
	Volume  string // id of the volume, or of the snapshot of a clone
	Clone   string // name
	Done    bool   // the row is gone; else the next Sweep tries again
	Text    string // what was done, or why not
}

// errLater means that a row has to stay, and nothing is wrong.
type errLater string

func (e errLater) Error() string { return string(e) }

// undo takes away what a row of ours tells of, whose device is d; it ends that. A
// row whose undoing fails, or that something may still come of, is let go for Sweep.
func (k *Keeper) undo(ctx context.Context, c *Client, r *row, d *device) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.wait.release)
	defer cancel()
	var err error
	if r.Clone != "" {
		_, err = k.undoClone(ctx, c, r)
	} else {
		_, err = k.undoVolume(ctx, c, r, d, false)
	}
	if _, ok := errors.AsType[errLater](err); ok {
		k.log.Info("left for later", "volume", r.Volume, "reason", err.Error())
		r.leave()
		return nil
	}
	if err != nil {
		r.leave()
		return err
	}
	return r.drop()
}

// undoVolume detaches what the row's owner has attached, if nobody has attached it
// since and nobody uses it: a server detaches a device that is open, and attaches the
// volume a second time beside it. d is the device where the owner has it, and is
// closed. The text says what was done.
func (k *Keeper) undoVolume(ctx context.Context, c *Client, r *row, d *device, dead bool) (string, error) {
	defer d.close()
	if r.Phase == phaseHeld {
		return "it was not attached by us", nil
	}
	v, err := c.Inspect(ctx, r.Volume)
	switch {
	case errors.Is(err, hostctl.ErrNotFound):
		return "the volume is gone", k.sameEndpoint(c, r)
	case err != nil:
		return "", err
	case !v.Attached:
		if r.Phase == phaseAttaching {
			return "it is not attached", k.young(r)
		}
		return "it is not attached any more", nil
	case !v.here && r.Phase == phaseAttached && v.Path == r.Path && r.Path != "":
		return "", c.refuse("Detach", r.Volume, "it was attached here as %q, and the server calls the node of that %q now: if that is this machine, correct node in the profile and detach it by hand", clean(r.Path), v.AttachedOn)
	case !v.here:
		return "it is attached on node " + v.AttachedOn + " now", nil
	case r.Path != "" && v.Path != r.Path:
		return fmt.Sprintf("somebody has attached it anew, as %q", clean(v.Path)), nil
	}
	if dead && v.Path != "" {
		if err := c.Here(ctx); err != nil {
			return "", err
		}
		if d, err = c.verify(ctx, &v, nil); err != nil {
			return "", err
		}
	}
	if d != nil {
		by := k.busy(ctx, d)
		d.close()
		switch {
		case by != "" && dead:
			return "it stays attached: " + by, nil
		case by != "":
			k.log.Warn("a volume stays attached for now: somebody has come to use it", "volume", r.Volume, "device", clean(v.Path), "user", by)
			return "", errLater("it stays attached: " + by) // the sweeper looks whether that lasts
		}
	}
	return "it was detached", c.Detach(ctx, v.ID)
}

// undoClone deletes the clone of a row. Its name is nobody else's; its parent is
// looked at all the same.
func (k *Keeper) undoClone(ctx context.Context, c *Client, r *row) (string, error) {
	found, err := c.named(ctx, r.Clone)
	if err != nil {
		return "", err
	}
	if len(found) == 0 && r.CloneID != "" {
		v, err := c.Inspect(ctx, r.CloneID)
		if errors.Is(err, hostctl.ErrNotFound) {
			return "the clone is gone", k.sameEndpoint(c, r)
		}
		if err != nil {
			return "", err
		}
		found = []Volume{v}
	}
	text := "the clone was deleted"
	if len(found) == 0 {
		err := k.sameEndpoint(c, r)
		if err == nil {
			err = k.young(r)
		}
		return "there is no clone", err
	}
	for _, v := range found {
		if v.Parent != r.Volume || v.Name != r.Clone {
			text = fmt.Sprintf("volume %s is called %q, has parent %q and stays: it is no clone of ours", v.ID, v.Name, v.Parent)
			continue
		}
		if v.Attached {
			if err := c.Detach(ctx, v.ID); err != nil {
				return "", err
			}
		}
		if err := c.Delete(ctx, v.ID); err != nil {
			return "", err
		}
	}
	return text, nil
}

// young keeps a row of which a call that nobody waits for may still make something.
func (k *Keeper) young(r *row) error {
	if age := time.Since(r.At).Abs(); !r.sure && age < k.wait.settle { // clocks are set back as well
		return errLater("what was asked for may still come")
	}
	return nil
}

// sameEndpoint keeps a row of something that is not found where it never was.
func (k *Keeper) sameEndpoint(c *Client, r *row) error {
	if r.Endpoint != c.cfg.Endpoint {
		return errLater(fmt.Sprintf("it was on endpoint %s, and the profile leads to %s; if that is another storage, undo it by hand and delete %s", r.Endpoint, c.cfg.Endpoint, r.file))
	}
	return nil
}

// Sweep undoes what owners that are dead, or whose Release has failed, have left.
// client makes or has the Client of a profile; what cannot be reached stays for the
// next time, and is asked once: all rows of a profile that is away wait for it. A
// live volume is detached only if nobody uses it. With profiles only theirs are swept.
func (k *Keeper) Sweep(ctx context.Context, client func(profile string) (*Client, error), profiles ...string) ([]Swept, error) {
	return k.sweep(ctx, client, func(e *entry) bool { return len(profiles) == 0 || slices.Contains(profiles, e.Profile) })
}

// sweepSnapshot sweeps the clones of one snapshot. What fails is tried again by
// Sweep.
func (k *Keeper) sweepSnapshot(ctx context.Context, c *Client, identity string) {
	client := func(string) (*Client, error) { return c, nil }
	done, err := k.sweep(ctx, client, func(e *entry) bool {
		return e.Clone != "" && e.Identity == identity && e.Profile == c.Name()
	})
	if err != nil || len(done) > 0 {
		k.log.Info("clones of a process that has ended", "swept", done, "err", err)
	}
}

func (k *Keeper) sweep(ctx context.Context, client func(profile string) (*Client, error), want func(e *entry) bool) ([]Swept, error) {
	files, err := k.l.files()
	if err != nil {
		return nil, err
	}
	var all []Swept
	var bad []error
	away := map[string]error{} // by profile
	for _, file := range files {
		r, err := k.l.orphan(file)
		switch {
		case err != nil:
			bad = append(bad, err)
		case r == nil:
		case want(&r.entry):
			all = append(all, k.sweepRow(ctx, client, r, away))
		default:
			r.leave()
		}
	}
	return all, errors.Join(bad...)
}

func (k *Keeper) sweepRow(ctx context.Context, client func(profile string) (*Client, error), r *row, away map[string]error) Swept {
	s := Swept{Profile: r.Profile, Volume: r.Volume, Clone: r.Clone}
	c, err := client(r.Profile)
	if err == nil {
		err = away[r.Profile]
	}
	switch {
	case r.Clone == "" && r.Phase == phaseHeld:
		s.Text = "it was not attached by us"
		err = nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
	case r.Clone != "":
		s.Text, err = k.undoClone(ctx, c, r)
	default:
		s.Text, err = k.undoVolume(ctx, c, r, nil, true)
	}
	if err == nil {
		err = r.drop()
	} else {
		r.leave()
	}
	s.Done = err == nil
	if err != nil {
		s.Text = err.Error()
		if e, ok := errors.AsType[*Error](err); ok && (e.Code == codes.Unavailable || e.Code == codes.DeadlineExceeded) {
			away[r.Profile] = err
		}
	}
	return s
}
