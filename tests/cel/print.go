package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	apiservercel "k8s.io/apiserver/pkg/cel"
)

// printed writes a value as Kustody's own print does.
func printed(value ref.Val) string {
	switch value := value.(type) {
	case types.Null:
		return "null"
	case types.Bool:
		return strconv.FormatBool(bool(value))
	case types.Int:
		return strconv.FormatInt(int64(value), 10)
	case types.Uint:
		return strconv.FormatUint(uint64(value), 10) + "u"
	case types.Double:
		return "double(" + strconv.FormatFloat(float64(value), 'g', -1, 64) + ")"
	case types.String:
		return quoted(string(value))
	case types.Bytes:
		var out strings.Builder
		for _, octet := range []byte(value) {
			fmt.Fprintf(&out, `\x%02x`, octet)
		}
		return `b"` + out.String() + `"`
	case *types.Optional:
		if !value.HasValue() {
			return "optional.none()"
		}
		return "optional.of(" + printed(value.GetValue()) + ")"
	case apiservercel.Quantity:
		return fmt.Sprintf("%s(%s)", value.Type().TypeName(), strconv.FormatFloat(value.AsApproximateFloat64(), 'g', -1, 64))
	case *apiservercel.Quantity:
		return printed(*value)
	case apiservercel.URL:
		return fmt.Sprintf("%s(%s)", value.Type().TypeName(), value.URL.String())
	case apiservercel.Semver:
		return fmt.Sprintf("%s(%s)", value.Type().TypeName(), value.Version.String())
	case apiservercel.Format:
		return fmt.Sprintf("%s(%s)", value.Type().TypeName(), value.Name)
	case ref.Type:
		return "type(" + value.TypeName() + ")"
	case traits.Mapper:
		return ofMap(value)
	case traits.Lister:
		var parts []string
		for iterator := value.Iterator(); iterator.HasNext() == types.True; {
			parts = append(parts, printed(iterator.Next()))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		return fmt.Sprintf("%s(%v)", value.Type().TypeName(), value.ConvertToType(types.StringType))
	}
}

// ofMap sorts by key: Go's order is another each time.
func ofMap(value traits.Mapper) string {
	var keys []ref.Val
	for iterator := value.Iterator(); iterator.HasNext() == types.True; {
		keys = append(keys, iterator.Next())
	}
	sort.Slice(keys, func(a, b int) bool {
		comparer, ok := keys[a].(traits.Comparer)
		return ok && comparer.Compare(keys[b]) == types.IntNegOne
	})
	var parts []string
	for _, key := range keys {
		parts = append(parts, printed(key)+": "+printed(value.Get(key)))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func quoted(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			out.WriteRune('\\')
			out.WriteRune(c)
		case c == '\n':
			out.WriteString(`\n`)
		case c < 0x20:
			fmt.Fprintf(&out, `\x%02x`, c)
		default:
			out.WriteRune(c)
		}
	}
	out.WriteByte('"')
	return out.String()
}
