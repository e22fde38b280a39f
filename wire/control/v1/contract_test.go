package controlv1

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// baseline is the API as it was last accepted: a FileDescriptorProto.
const baseline = "testdata/v1.binpb"

var accept = flag.Bool("accept", false, "record the additions to the API in "+baseline)

// current is the API as it is generated.
func current() *descriptorpb.FileDescriptorProto {
	return protodesc.ToFileDescriptorProto(File_haulback_proto)
}

// TestOnlyAdditions holds the API to its promise. With -accept it records what
// was added, after the same look.
func TestOnlyAdditions(t *testing.T) {
	raw, err := os.ReadFile(baseline)
	if err != nil && (!*accept || !os.IsNotExist(err)) {
		t.Fatal(err)
	}
	was := new(descriptorpb.FileDescriptorProto)
	if err := proto.Unmarshal(raw, was); err != nil {
		t.Fatal(err)
	}
	now := current()
	if len(raw) > 0 {
		if broken := compare(was, now); len(broken) > 0 {
			for _, b := range broken {
				t.Error(b)
			}
			t.Fatal("callers of the API as it was accepted would notice; add instead of changing")
		}
	}
	if !*accept {
		if !proto.Equal(was, now) {
			t.Error("the API has additions that nobody accepted; run: make proto-accept")
		}
		return
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(baseline, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// compare lists what a caller of was could notice in now: the rules FILE and
// WIRE_JSON of "buf breaking", for what haulback.proto uses.
func compare(was, now *descriptorpb.FileDescriptorProto) (broken []string) {
	b := &breaks{}
	b.same("file", "package", was.GetPackage(), now.GetPackage())
	b.same("file", "syntax", was.GetSyntax(), now.GetSyntax())
	b.same("file", "go_package", was.GetOptions().GetGoPackage(), now.GetOptions().GetGoPackage())
	b.messages("", was.MessageType, now.MessageType)
	b.enums("", was.EnumType, now.EnumType)
	b.services(was.Service, now.Service)
	return b.list
}

type breaks struct{ list []string }

func (b *breaks) add(format string, args ...any) {
	b.list = append(b.list, fmt.Sprintf(format, args...))
}

func (b *breaks) same(where, what string, was, now any) {
	if was != now {
		b.add("%s: %s was %v and is %v", where, what, was, now)
	}
}

// match pairs what was with what is, in order of the keys, and reports what has
// gone.
func match[K cmp.Ordered, T any](b *breaks, where string, was, now []T, key func(T) K, pair func(K, T, T)) {
	index := make(map[K]T, len(now))
	for _, n := range now {
		index[key(n)] = n
	}
	all := make(map[K]T, len(was))
	for _, w := range was {
		all[key(w)] = w
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if n, ok := index[k]; ok {
			pair(k, all[k], n)
		} else {
			b.add("%s %v: it has gone", where, k)
		}
	}
}

// kindOf names messages and enums of the file, or inside of a message.
func kindOf(what, prefix string) string { return strings.TrimSpace(prefix + " " + what) }

func (b *breaks) messages(prefix string, was, now []*descriptorpb.DescriptorProto) {
	match(b, kindOf("message", prefix), was, now, (*descriptorpb.DescriptorProto).GetName, func(name string, w, n *descriptorpb.DescriptorProto) {
		at := prefix + name
		match(b, at+" field", w.Field, n.Field, (*descriptorpb.FieldDescriptorProto).GetNumber, func(number int32, wf, nf *descriptorpb.FieldDescriptorProto) {
			b.field(fmt.Sprintf("%s field %d", at, number), w, n, wf, nf)
		})
		match(b, at+" oneof", w.OneofDecl, n.OneofDecl, (*descriptorpb.OneofDescriptorProto).GetName, func(string, *descriptorpb.OneofDescriptorProto, *descriptorpb.OneofDescriptorProto) {})
		b.same(at, "map entry", w.GetOptions().GetMapEntry(), n.GetOptions().GetMapEntry())
		for _, r := range w.ReservedRange {
			if !slices.ContainsFunc(n.ReservedRange, func(o *descriptorpb.DescriptorProto_ReservedRange) bool {
				return o.GetStart() <= r.GetStart() && o.GetEnd() >= r.GetEnd()
			}) {
				b.add("%s: numbers %d to %d are no longer reserved", at, r.GetStart(), r.GetEnd()-1)
			}
		}
		b.reservedNames(at, w.ReservedName, n.ReservedName)
		b.messages(at+".", w.NestedType, n.NestedType)
		b.enums(at+".", w.EnumType, n.EnumType)
	})
}

func (b *breaks) field(at string, wm, nm *descriptorpb.DescriptorProto, w, n *descriptorpb.FieldDescriptorProto) {
	b.same(at, "name", w.GetName(), n.GetName())
	b.same(at, "JSON name", w.GetJsonName(), n.GetJsonName())
	b.same(at, "type", w.GetType(), n.GetType())
	b.same(at, "type", w.GetTypeName(), n.GetTypeName())
	b.same(at, "cardinality", w.GetLabel(), n.GetLabel())
	b.same(at, "presence", w.GetProto3Optional(), n.GetProto3Optional())
	b.same(at, "packing", w.GetOptions().GetPacked(), n.GetOptions().GetPacked())
	b.same(at, "oneof", oneof(wm, w), oneof(nm, n))
}

func oneof(m *descriptorpb.DescriptorProto, f *descriptorpb.FieldDescriptorProto) string {
	if f.OneofIndex == nil {
		return ""
	}
	return m.OneofDecl[f.GetOneofIndex()].GetName()
}

func (b *breaks) reservedNames(at string, was, now []string) {
	for _, name := range was {
		if !slices.Contains(now, name) {
			b.add("%s: the name %q is no longer reserved", at, name)
		}
	}
}

func (b *breaks) enums(prefix string, was, now []*descriptorpb.EnumDescriptorProto) {
	match(b, kindOf("enum", prefix), was, now, (*descriptorpb.EnumDescriptorProto).GetName, func(name string, w, n *descriptorpb.EnumDescriptorProto) {
		at := prefix + name
		match(b, at+" value", w.Value, n.Value, (*descriptorpb.EnumValueDescriptorProto).GetNumber, func(number int32, wv, nv *descriptorpb.EnumValueDescriptorProto) {
			b.same(fmt.Sprintf("%s value %d", at, number), "name", wv.GetName(), nv.GetName())
		})
		for _, r := range w.ReservedRange {
			if !slices.ContainsFunc(n.ReservedRange, func(o *descriptorpb.EnumDescriptorProto_EnumReservedRange) bool {
				return o.GetStart() <= r.GetStart() && o.GetEnd() >= r.GetEnd()
			}) {
				b.add("%s: numbers %d to %d are no longer reserved", at, r.GetStart(), r.GetEnd())
			}
		}
		b.reservedNames(at, w.ReservedName, n.ReservedName)
	})
}

func (b *breaks) services(was, now []*descriptorpb.ServiceDescriptorProto) {
	match(b, "service", was, now, (*descriptorpb.ServiceDescriptorProto).GetName, func(name string, w, n *descriptorpb.ServiceDescriptorProto) {
		match(b, name+" method", w.Method, n.Method, (*descriptorpb.MethodDescriptorProto).GetName, func(method string, wm, nm *descriptorpb.MethodDescriptorProto) {
			at := name + "." + method
			b.same(at, "request", wm.GetInputType(), nm.GetInputType())
			b.same(at, "response", wm.GetOutputType(), nm.GetOutputType())
			b.same(at, "client streaming", wm.GetClientStreaming(), nm.GetClientStreaming())
			b.same(at, "server streaming", wm.GetServerStreaming(), nm.GetServerStreaming())
			b.same(at, "idempotency", wm.GetOptions().GetIdempotencyLevel(), nm.GetOptions().GetIdempotencyLevel())
		})
	})
}
