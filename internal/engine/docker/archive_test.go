package docker

import (
	"strings"
	"testing"
)

func TestLoaded_NamesTheImage(t *testing.T) {
	const id = "sha256:74d40c9289b15139f259166aa3557a7a0f09039dc17dc6f10acac0693c979cdf"
	for _, c := range []struct{ name, report, want, err string }{
		{"without a name", `{"stream":"Loaded image ID: ` + id + `\n"}`, id, ""},
		{"with a name", `{"stream":"Loaded image: shop:v1\n"}`, "shop:v1", ""},
		{"with progress", `{"status":"Loading layer","id":"0a39"}` + "\n" + `{"stream":"Loaded image: shop:v1\n"}`, "shop:v1", ""},
		{"which another had", `{"stream":"The image shop:v1 already exists, renaming the old one with ID x to empty string\nLoaded image: shop:v1\n"}`, "shop:v1", ""},
		{"an error in the report", `{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}`, "", "unexpected EOF"},
		{"an image that cannot be run", `{"stream":"Loaded image ID: ` + id + `\nError unpacking image ` + id + `: wrong diff id\n"}`, "", "wrong diff id"},
		{"nothing", ``, "", "names no image"},
		{"half of a report", `{"stream":"Loaded`, "", "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := loaded(strings.NewReader(c.report))
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestEngine_InContainerd(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver [][2]string
		want   bool
	}{
		{"graph driver", [][2]string{{"Backing Filesystem", "extfs"}, {"Supports d_type", "true"}}, false},
		{"containerd", [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}, true},
		{"unknown", nil, false},
	} {
		if got := inContainerd(c.driver); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
