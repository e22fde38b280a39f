package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// maxWait is how long the host may hold back an answer that says "no change".
const maxWait = 30 * time.Second

// maxTries bounds how often one call to act starts an action. The second is for
// a session that ended, the third for a task of somebody else that was in the way.
const maxTries = 3

// action is one host action in the order of doc.go.
type action struct {
	what string // for people: "power off web"
	// kinds are what the host's word for the task ends with, without its type:
	// "powerOff". A running one on entity is waited for instead of starting
	// another.
	kinds  []string
	entity types.ManagedObjectReference
	// vm is watched for a question while the task runs; zero: nothing is.
	vm types.ManagedObjectReference
	// done observes the end state.
	done func(ctx context.Context) (bool, error)
	// start asks the host. A zero reference means that it has no task for it.
	start func(ctx context.Context, l *link) (types.ManagedObjectReference, error)
	// trust takes the success of the Op's own task for the end state: for the
	// one thing that cannot be observed, a revert.
	trust bool
}

// errNotDone is a task that ended well without what it was for.
var errNotDone = errors.New("the host says that it is done, but it is not")

// act makes the end state of a true.
func (c *Client) act(ctx context.Context, op *hostctl.Op, a action) error {
	for try := 1; ; try++ {
		if ok, err := a.done(ctx); ok || err != nil {
			return err
		}
		if ok, err := c.earlier(ctx, op, &a); ok || err != nil {
			return err
		}
		err := c.begin(ctx, op, &a)
		if u, ok := errors.AsType[*unstored](err); ok {
			return u.error // the caller can go on only from what is stored
		}
		// The reply may have been lost, or the host says what is no news: that it
		// is off already. What counts is what is there.
		if ok, seen := a.done(ctx); ok && ctx.Err() == nil {
			if err != nil {
				c.log.Debug("the end was there although the host said otherwise", "step", a.what, "err", err)
			}
			return nil
		} else if err == nil && seen != nil {
			return seen
		}
		switch {
		case err == nil && a.trust:
			return nil
		case err == nil:
			return &callError{host: c.cfg.Name, what: a.what, text: errNotDone.Error(), retry: true, err: errNotDone}
		case try < maxTries && isLogout(err):
			continue
		}
		return err
	}
}

// unstored is the error of Op.Started. It ends the action, whatever is there.
type unstored struct{ error }

// begin starts the action and waits for its task.
func (c *Client) begin(ctx context.Context, op *hostctl.Op, a *action) error {
	var ref types.ManagedObjectReference
	err := c.change(ctx, a.what, func(l *link) (err error) {
		ref, err = a.start(ctx, l)
		return err
	})
	if err != nil || ref.Value == "" {
		return err
	}
	c.log.Debug("task begins", "step", a.what, "task", clean(ref.Value))
	if op.Started != nil {
		if err := op.Started(ref.Value); err != nil {
			return &unstored{fmt.Errorf("%s: %w", a.what, err)}
		}
	}
	return c.await(ctx, a, ref)
}

// earlier waits for a task of an earlier try: the one that was stored, or one
// that runs on the entity and whose reference was lost with its reply. ok means
// that the end state is there now.
func (c *Client) earlier(ctx context.Context, op *hostctl.Op, a *action) (ok bool, err error) {
	refs, err := c.running(ctx, a.entity, a.kinds)
	if err != nil {
		return false, err
	}
	if stored := taskRef(op.Task); stored.Value != "" && !slices.Contains(refs, stored) {
		refs = append(refs, stored)
	}
	if len(refs) == 0 {
		return false, nil
	}
	succeeded := false
	for _, ref := range refs {
		err := c.await(ctx, a, ref)
		switch {
		case err == nil:
			succeeded = succeeded || ref.Value == op.Task
		case ctx.Err() != nil, isQuestion(err):
			return false, err
		case !isGone(err) && retries(err) && !isFault(err):
			return false, err // the host is away: nothing was learnt
		}
		// A task that failed or that nobody knows any more is judged by what is
		// there.
	}
	if a.trust && succeeded {
		return true, nil
	}
	return a.done(ctx)
}

// taskRef is the reference of a stored task; zero of what is none.
func taskRef(s string) (ref types.ManagedObjectReference) {
	if s == "" || strings.ContainsAny(s, " \t") {
		return ref
	}
	return types.ManagedObjectReference{Type: "Task", Value: s}
}

// running lists the tasks of the entity that have not ended and are of a kind;
// of any kind when there are none.
func (c *Client) running(ctx context.Context, entity types.ManagedObjectReference, kinds []string) (refs []types.ManagedObjectReference, err error) {
	if entity.Value == "" {
		return nil, nil
	}
	infos, err := c.tasks(ctx, entity)
	for i := range infos {
		if t := &infos[i]; !ended(t) && (len(kinds) == 0 || ofKind(t, kinds)) {
			refs = append(refs, t.Task)
		}
	}
	if isGone(err) {
		return nil, nil // what it was on is gone; the observation judges that
	}
	return refs, err
}

// task is the reference of a task that govmomi has started.
func task(t *object.Task, err error) (ref types.ManagedObjectReference, _ error) {
	if err != nil {
		return ref, err
	}
	return t.Reference(), nil
}

func ended(t *types.TaskInfo) bool {
	return t.State == types.TaskInfoStateSuccess || t.State == types.TaskInfoStateError
}

// ofKind compares with "VirtualMachine.powerOff" and "vm.Snapshot.revert".
func ofKind(t *types.TaskInfo, kinds []string) bool {
	id := strings.ToLower(t.DescriptionId)
	return slices.ContainsFunc(kinds, func(k string) bool {
		return strings.HasSuffix(id, "."+strings.ToLower(k))
	})
}

// tasks is what an entity's recent tasks are.
func (c *Client) tasks(ctx context.Context, entity types.ManagedObjectReference) (infos []types.TaskInfo, err error) {
	err = c.observe(ctx, "look at the tasks of "+entity.Value, func(l *link) error {
		infos = nil
		pc := property.DefaultCollector(l.Client)
		var e mo.ManagedEntity
		if err := pc.RetrieveOne(ctx, entity, []string{"recentTask"}, &e); err != nil {
			return err
		}
		for _, ref := range e.RecentTask {
			var t mo.Task
			if err := pc.RetrieveOne(ctx, ref, []string{"info"}, &t); isGone(err) {
				continue // it has been forgotten since
			} else if err != nil {
				return err
			}
			infos = append(infos, t.Info)
		}
		return nil
	})
	return infos, err
}

// questionError means that a VM stands still until somebody answers.
type questionError struct{ host, vm, text string }

// Error implements error.
func (e *questionError) Error() string {
	return fmt.Sprintf("host %s: %s waits for an answer to %q; answer it on the host", e.host, e.vm, e.text)
}

// await waits for the end of a task, through lost sessions. A question of its VM
// ends it too: no task ends before that is answered.
func (c *Client) await(ctx context.Context, a *action, ref types.ManagedObjectReference) error {
	var info types.TaskInfo
	err := c.observe(ctx, a.what, func(l *link) error {
		ask := ""
		filter := new(property.WaitFilter).Add(ref, ref.Type, []string{"info"})
		if a.vm.Value != "" {
			filter.Add(a.vm, a.vm.Type, []string{"runtime.question"})
		}
		err := updates(ctx, l, filter.CreateFilter, func(all []types.ObjectUpdate) bool {
			for i := range all {
				take(&all[i], &info, &ask)
			}
			return ended(&info) || ask != ""
		})
		switch {
		case ended(&info):
			return nil
		case ask != "":
			return &questionError{c.cfg.Name, clean(a.vm.Value), ask}
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case info.State == types.TaskInfoStateError:
		return c.wrap(ctx, a.what, taskError{info.Error})
	}
	return nil
}

// take reads one update of a task and of its VM's question.
func take(u *types.ObjectUpdate, info *types.TaskInfo, ask *string) {
	for _, ch := range u.ChangeSet {
		switch v := ch.Val.(type) {
		case types.TaskInfo:
			*info = v
		case types.VirtualMachineQuestionInfo:
			*ask = clean(v.Text)
		case types.TaskInfoState:
			if ch.Name == "info.state" {
				info.State = v
			}
		case types.LocalizedMethodFault:
			if ch.Name == "info.error" {
				info.Error = &v
			}
		}
	}
}

// taskError is the fault of a task, for package fault.
type taskError struct{ f *types.LocalizedMethodFault }

// Error implements error.
func (e taskError) Error() string {
	if e.f == nil || e.f.LocalizedMessage == "" {
		return ""
	}
	return e.f.LocalizedMessage
}

// Fault is the fault itself.
func (e taskError) Fault() types.BaseMethodFault {
	if e.f == nil {
		return nil
	}
	return e.f.Fault
}

// retries is what an error says of itself.
func retries(err error) bool {
	r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	return ok && r.Retryable()
}

// isFault reports whether the host itself has answered.
func isFault(err error) bool { return is[types.BaseMethodFault](err) }

func isQuestion(err error) bool {
	_, ok := errors.AsType[*questionError](err)
	return ok
}
