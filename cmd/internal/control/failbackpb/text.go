package failbackpb

import (
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
)

// mended is m with every text made UTF-8: one byte of a host's answer that is
// not would make all of it a message that nobody can be sent.
func mended[M proto.Message](m M) M {
	mend(m.ProtoReflect())
	return m
}

func mend(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			mendMap(v.Map())
		case f.IsList():
			for list, i := v.List(), 0; i < list.Len(); i++ {
				list.Set(i, mendOne(list.Get(i)))
			}
		case f.Kind() == protoreflect.StringKind && !utf8.ValidString(v.String()):
			m.Set(f, mendOne(v))
		case f.Message() != nil:
			mend(v.Message())
		}
		return true
	})
}

// mendMap has text on both sides only, as all maps of the API.
func mendMap(m protoreflect.Map) {
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if text := k.String(); !utf8.ValidString(text) {
			m.Clear(k)
			k = protoreflect.ValueOfString(jobpb.Text(text)).MapKey()
		}
		m.Set(k, mendOne(v))
		return true
	})
}

func mendOne(v protoreflect.Value) protoreflect.Value {
	switch x := v.Interface().(type) {
	case string:
		return protoreflect.ValueOfString(jobpb.Text(x))
	case protoreflect.Message:
		mend(x)
	}
	return v
}
