package controlv1

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

type file = descriptorpb.FileDescriptorProto

func message(f *file, name string) *descriptorpb.DescriptorProto {
	return f.MessageType[slices.IndexFunc(f.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == name })]
}

func fieldOf(f *file, msg, name string) *descriptorpb.FieldDescriptorProto {
	m := message(f, msg)
	return m.Field[slices.IndexFunc(m.Field, func(m *descriptorpb.FieldDescriptorProto) bool { return m.GetName() == name })]
}

func enum(f *file, name string) *descriptorpb.EnumDescriptorProto {
	return f.EnumType[slices.IndexFunc(f.EnumType, func(m *descriptorpb.EnumDescriptorProto) bool { return m.GetName() == name })]
}

func method(f *file, service, name string) *descriptorpb.MethodDescriptorProto {
	s := f.Service[slices.IndexFunc(f.Service, func(m *descriptorpb.ServiceDescriptorProto) bool { return m.GetName() == service })]
	return s.Method[slices.IndexFunc(s.Method, func(m *descriptorpb.MethodDescriptorProto) bool { return m.GetName() == name })]
}

// TestBreaking breaks the API in every way that the rules know, and sees each
// of them found.
func TestBreaking(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(*file)
	}{
		{"package", "package", func(f *file) { f.Package = proto.String("haulback.v2") }},
		{"syntax", "syntax", func(f *file) { f.Syntax = nil }},
		{"go package", "go_package", func(f *file) { f.Options.GoPackage = proto.String("x") }},
		{"message gone", "message Limits: it has gone", func(f *file) {
			f.MessageType = slices.DeleteFunc(f.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == "Limits" })
		}},
		{"message renamed", "message Limits: it has gone", func(f *file) { message(f, "Limits").Name = proto.String("Bounds") }},
		{"field gone", "Job field 1: it has gone", func(f *file) { message(f, "Job").Field = message(f, "Job").Field[1:] }},
		{"field gone, number reserved", "Job field 1: it has gone", func(f *file) {
			m := message(f, "Job")
			m.Field = m.Field[1:]
			m.ReservedRange = append(m.ReservedRange, &descriptorpb.DescriptorProto_ReservedRange{Start: proto.Int32(1), End: proto.Int32(2)})
		}},
		{"field renumbered", "Job field 4: it has gone", func(f *file) { fieldOf(f, "Job", "owner").Number = proto.Int32(99) }},
		{"field renamed", "Job field 4: name", func(f *file) { fieldOf(f, "Job", "owner").Name = proto.String("user") }},
		{"JSON name", "Job field 3: JSON name", func(f *file) { fieldOf(f, "Job", "spec_digest").JsonName = proto.String("spec_digest") }},
		{"type", "Counters field 1: type", func(f *file) {
			fieldOf(f, "Counters", "total_bytes").Type = descriptorpb.FieldDescriptorProto_TYPE_UINT64.Enum()
		}},
		{"type of a message", "Job field 2: type", func(f *file) { fieldOf(f, "Job", "spec").TypeName = proto.String(".haulback.v1.Limits") }},
		{"cardinality", "Job field 4: cardinality", func(f *file) {
			fieldOf(f, "Job", "owner").Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}},
		{"presence", "ProbeResponse field 8: presence", func(f *file) { fieldOf(f, "ProbeResponse", "can_write").Proto3Optional = nil }},
		{"out of its oneof", "WatchResponse field 2: oneof", func(f *file) { fieldOf(f, "WatchResponse", "job").OneofIndex = nil }},
		{"oneof renamed", "WatchResponse oneof event: it has gone", func(f *file) { message(f, "WatchResponse").OneofDecl[0].Name = proto.String("what") }},
		{"map", "JobSpec.LabelsEntry field 2: type", func(f *file) {
			message(f, "JobSpec").NestedType[0].Field[1].Type = descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum()
		}},
		{"enum gone", "enum Mode: it has gone", func(f *file) {
			f.EnumType = slices.DeleteFunc(f.EnumType, func(m *descriptorpb.EnumDescriptorProto) bool { return m.GetName() == "Mode" })
		}},
		{"value gone", "Phase value 9: it has gone", func(f *file) { enum(f, "Phase").Value = enum(f, "Phase").Value[:9] }},
		{"value renamed", "Phase value 9: name", func(f *file) { enum(f, "Phase").Value[9].Name = proto.String("PHASE_HELD") }},
		{"value renumbered", "Phase value 9: it has gone", func(f *file) { enum(f, "Phase").Value[9].Number = proto.Int32(10) }},
		{"service gone", "service Extents: it has gone", func(f *file) {
			f.Service = slices.DeleteFunc(f.Service, func(m *descriptorpb.ServiceDescriptorProto) bool { return m.GetName() == "Extents" })
		}},
		{"method gone", "Jobs method Get: it has gone", func(f *file) { method(f, "Jobs", "Get").Name = proto.String("Read") }},
		{"request", "Jobs.Get: request", func(f *file) { method(f, "Jobs", "Get").InputType = proto.String(".haulback.v1.ListRequest") }},
		{"response", "Jobs.Get: response", func(f *file) { method(f, "Jobs", "Get").OutputType = proto.String(".haulback.v1.Job") }},
		{"no stream any more", "Jobs.Watch: server streaming", func(f *file) { method(f, "Jobs", "Watch").ServerStreaming = nil }},
		{"stream of requests", "Jobs.Get: client streaming", func(f *file) { method(f, "Jobs", "Get").ClientStreaming = proto.Bool(true) }},
		{"idempotency", "Jobs.Get: idempotency", func(f *file) { method(f, "Jobs", "Get").Options = nil }},
	} {
		now := current()
		c.do(now)
		if broken := strings.Join(compare(current(), now), "\n"); !strings.Contains(broken, c.want) {
			t.Errorf("%s: not found, only %q", c.name, broken)
		}
	}
}

// TestReservedStays keeps what was reserved, which the API has none of so far.
func TestReservedStays(t *testing.T) {
	was := current()
	m, e := message(was, "Job"), enum(was, "Phase")
	m.ReservedRange = append(m.ReservedRange, &descriptorpb.DescriptorProto_ReservedRange{Start: proto.Int32(50), End: proto.Int32(52)})
	m.ReservedName = append(m.ReservedName, "old")
	e.ReservedRange = append(e.ReservedRange, &descriptorpb.EnumDescriptorProto_EnumReservedRange{Start: proto.Int32(50), End: proto.Int32(51)})
	e.ReservedName = append(e.ReservedName, "OLD")
	if broken := compare(was, current()); len(broken) != 4 {
		t.Errorf("reserved numbers and names were given up, found %q", broken)
	}
	if broken := compare(was, was); len(broken) != 0 {
		t.Errorf("nothing changed: %q", broken)
	}
}

// TestAdditions finds nothing wrong with what may be added.
func TestAdditions(t *testing.T) {
	now := current()
	m := message(now, "Job")
	m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{Name: proto.String("more"), JsonName: proto.String("more"), Number: proto.Int32(99), Type: descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum()})
	slices.Reverse(m.Field) // their order is nobody's business
	e := enum(now, "Phase")
	e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("PHASE_MORE"), Number: proto.Int32(10)})
	now.MessageType = append(now.MessageType, &descriptorpb.DescriptorProto{Name: proto.String("More")})
	now.Service[0].Method = append(now.Service[0].Method, &descriptorpb.MethodDescriptorProto{Name: proto.String("More")})
	now.Service = append(now.Service, &descriptorpb.ServiceDescriptorProto{Name: proto.String("More")})
	if broken := compare(current(), now); len(broken) != 0 {
		t.Errorf("additions are refused: %q", broken)
	}
}
