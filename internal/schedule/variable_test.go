package schedule

import (
	"testing"

	"pgregory.net/rapid"
)

var variables = []struct{ text, name, value string }{
	{`A=b`, "A", "b"},
	{`A = b c  `, "A", "b c"},
	{`A="b c"`, "A", "b c"},
	{`A='b "c"'  `, "A", `b "c"`},
	{`A="  b  "`, "A", "  b"}, // the blanks at the end are lost all the same
	{`A="'  b  '"`, "A", "  b  "},
	{`A=""`, "A", ""},
	{`A="''"`, "A", ""},
	{`A='"'`, "A", `"`},
	{`A=b # c`, "A", "b # c"},
	{`A==b`, "A", "=b"},
	{`A=b"c"`, "A", `b"c"`},
	{`A=$HOME/%`, "A", "$HOME/%"},
	{`"A B"=c`, "A B", "c"},
	{`'A' = c`, "A", "c"},
	{`A-1.b=c`, "A-1.b", "c"},
	{`*=1 * * * * x`, "*", "1 * * * * x"},
	{`@daily = x`, "@daily", "x"},
	{`5 = x`, "5", "x"},
}

func TestParse_Variables(t *testing.T) {
	for _, tt := range variables {
		c, err := Parse(" \t" + tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if v := c.Lines[0].Variable; v == nil || v.Name != tt.name || v.Value != tt.value {
			t.Errorf("%s: %+v", tt.text, v)
		}
	}
}

func TestVariable_WrittenIsReadTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`A=[ab'" \t=#%\\é]*`).Draw(t, "text")
		v, ok := parseVariable(text)
		if !ok {
			return
		}
		if again, ok := parseVariable(v.String()); !ok || again != v {
			t.Fatalf("%q is %+v, written %q, which is %+v", text, v, v.String(), again)
		}
	})
}
