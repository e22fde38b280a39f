package simvs

import (
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// ownTask begins the value of the references of our tasks.
const ownTask = "task-s"

// action is what a task does. It returns the result of the task.
type action func(ctx *simulator.Context) (types.AnyType, types.BaseMethodFault)

// start makes a task on an entity and runs it: after the delay of a switch, one
// at a time for each machine. The simulator's own Task.Run is not used: it holds
// the lock of the entity all the time, so that nobody can read a property of a VM
// while a snapshot is made.
func (s *Server) start(ctx *simulator.Context, entity types.ManagedObjectReference, method, id string, m *machine, do action) types.ManagedObjectReference {
	c := *ctx // its own: the simulator's locks belong to a context
	t := simulator.CreateTask(entity, id, nil)
	t.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("%s%d", ownTask, s.tasks.Add(1))}
	t.Info.Key, t.Info.Task = t.Self.Value, t.Self
	t.Info.Name, t.Info.DescriptionId = method, id
	t.Info.State = types.TaskInfoStateRunning
	t.Info.StartTime = types.NewTime(time.Now())
	t.Info.Reason = &types.TaskReasonUser{UserName: c.Session.UserName}
	if m != nil {
		t.Info.EntityName = m.name
	}
	if object := c.Map.Get(entity); object != nil {
		c.WithLock(entity, func() { c.Map.Put(t) }) // it is noted in the entity's list
	} else {
		c.Map.Put(t)
	}
	if m != nil {
		m.posted(&c, t)
	}
	s.work.Go(func() { s.run(&c, t, method, m, do) })
	return t.Self
}

func (s *Server) run(c *simulator.Context, t *simulator.Task, method string, m *machine, do action) {
	s.wait(s.slow(method))
	if m != nil {
		m.op.Lock()
	}
	result, fault := do(c)
	if m != nil {
		m.op.Unlock()
	}
	if fault == nil && s.failsAfter(method) {
		result, fault = nil, &types.SystemErrorFault{Reason: "simulated: the task has acted and fails"}
	}
	state, failed := types.TaskInfoStateSuccess, any(nil)
	if fault != nil {
		state, result = types.TaskInfoStateError, nil
		failed = types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultText(fault)}
	}
	c.Map.AtomicUpdate(c, t, []types.PropertyChange{
		{Name: "info.completeTime", Val: time.Now()},
		{Name: "info.result", Val: result},
		{Name: "info.error", Val: failed},
		{Name: "info.state", Val: state},
	})
}

// wait takes its time, but not longer than the server lives.
func (s *Server) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.done:
	}
}

// faultText is what a vCenter says of a fault, roughly.
func faultText(fault types.BaseMethodFault) string {
	switch f := fault.(type) {
	case *types.FileFault:
		return "Error caused by file " + f.File
	case *types.FileLocked:
		return "Unable to access file " + f.File + " since it is locked"
	case *types.FileNotFound:
		return "File " + f.File + " was not found"
	case *types.NoDiskSpace:
		return "There is not enough space on datastore " + f.Datastore
	case *types.InvalidPowerState:
		return "The attempted operation cannot be performed in the current state (" + words(string(f.ExistingState)) + ")"
	case *types.InvalidArgument:
		return "A specified parameter was not correct: " + f.InvalidProperty
	case *types.SystemErrorFault:
		return "A general system error occurred: " + f.Reason
	}
	return words(strings.TrimPrefix(fmt.Sprintf("%T", fault), "*types."))
}

// words makes "Powered off" of "poweredOff".
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	s := strings.ToLower(b.String())
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// base calls a method of the simulator that makes a task, waits for its end and
// removes the task. call is made with the entity's lock held. One runs at a time:
// in all of them the simulator reads and writes datastores as if it were alone.
func (s *Server) base(c *simulator.Context, entity mo.Reference, call func() types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	s.stock.Lock()
	defer s.stock.Unlock()
	var ref types.ManagedObjectReference
	c.WithLock(entity, func() { ref = call() })
	t := c.Map.Get(ref).(*simulator.Task)
	t.Wait()
	c.Map.Remove(c, ref)
	if t.Info.Error != nil {
		return nil, t.Info.Error.Fault
	}
	return t.Info.Result, nil
}

// taskList keeps the tasks that the simulator makes inside of ours out of the
// lists that clients read.
type taskList struct{ *simulator.TaskManager }

func (s *Server) replaceTaskList(ctx *simulator.Context) {
	m := ctx.Map.Get(*s.service.Context.Map.Get(serviceInstance).(*simulator.ServiceInstance).Content.TaskManager).(*simulator.TaskManager)
	ctx.Map.AddHandler(taskList{m}) // takes the place of m's: it has the same reference
}

var serviceInstance = types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"}

func (l taskList) PutObject(ctx *simulator.Context, o mo.Reference) {
	if t, ok := o.(*simulator.Task); ok && !strings.HasPrefix(t.Self.Value, ownTask) {
		switch t.Info.Name {
		case "ReconfigVm", "CreateVm", "RegisterVm":
			return
		}
	}
	l.TaskManager.PutObject(ctx, o)
}
