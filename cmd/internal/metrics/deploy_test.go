package metrics

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Files that go with the metrics.
const (
	dashboardFile = "../../../deploy/grafana/haulback.json"
	rulesFile     = "../../../deploy/prometheus/haulback.rules.yml"
	ruleTests     = "../../../deploy/prometheus/haulback.test.yml"
)

// names are the metrics that an expression may have: ours, and those of the
// library that are scraped as well.
func names(t *testing.T) (all []string) {
	t.Helper()
	for _, f := range Families {
		all = append(all, f.Name)
		if f.Kind == "histogram" {
			all = append(all, f.Name+"_bucket", f.Name+"_sum", f.Name+"_count")
		}
	}
	return append(all, "go_goroutines", "go_memstats_heap_inuse_bytes", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds")
}

var (
	metricName = regexp.MustCompile(`\b(?:haulback|go|process)_[a-z0-9_]+`)
	selector   = regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

// checkExpr sees to it that an expression names metrics and labels that exist.
func checkExpr(t *testing.T, where, expr string, known []string) {
	t.Helper()
	found := metricName.FindAllString(expr, -1)
	if len(found) == 0 && !strings.Contains(expr, "up{") {
		t.Errorf("%s: %q names no metric", where, expr)
	}
	for _, name := range found {
		if !slices.Contains(known, name) {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(s[1], "")
		i := slices.IndexFunc(Families[:], func(f Family) bool { return f.Name == s[1] || f.Name == base })
		if i < 0 {
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(append([]string{"instance", "job", "le"}, Families[i].Labels...), m[1]) {
				t.Errorf("%s: %s has no label %s", where, s[1], m[1])
			}
		}
	}
}

// TestDashboard: the dashboard has what Grafana needs to import it, and shows
// metrics that exist.
func TestDashboard(t *testing.T) {
	var d struct {
		UID, Title    string
		SchemaVersion int
		Time          struct{ From, To string }
		Templating    struct {
			List []struct{ Name, Type string }
		}
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ H, W, X, Y int }
			Datasource  struct{ Type, UID string }
			FieldConfig struct{ Defaults map[string]any }
			Targets     []struct{ Expr, RefID, LegendFormat string }
		}
	}
	if err := json.Unmarshal(read(t, dashboardFile), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || d.Time.From == "" || len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" || len(d.Panels) < 10 {
		t.Errorf("no dashboard: %+v", d)
	}
	known, ids := names(t), map[int]bool{}
	for i, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" || p.GridPos.W < 1 || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.H < 1 {
			t.Errorf("panel %d %q: id %d twice or none, no title, or not on the grid of 24: %+v", i, p.Title, p.ID, p.GridPos)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Datasource.Type != "prometheus" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 || p.FieldConfig.Defaults["unit"] == nil || p.Description == "" {
			t.Errorf("panel %q: no data source of the dashboard, query, unit or description", p.Title)
		}
		for _, q := range p.Targets {
			checkExpr(t, "panel "+p.Title, q.Expr, known)
			if q.RefID == "" || !strings.Contains(q.Expr, "$instance") {
				t.Errorf("panel %q: %q has no refId, or is not of the instances that are chosen", p.Title, q.Expr)
			}
		}
		for _, q := range d.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q lie on each other", p.Title, q.Title)
			}
		}
	}
}

// anchor is how a heading of the manual is linked to.
func anchor(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// TestRules: each alert says what happened, what it means, how urgent it is and
// where in the manual it goes on, of metrics that exist.
func TestRules(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(read(t, rulesFile), &file); err != nil {
		t.Fatal(err)
	}
	links := map[string]int{} // how many headings have it: a link leads to the first
	for line := range strings.Lines(string(read(t, manualFile))) {
		if h := strings.TrimLeft(line, "#"); h != line {
			links["docs/operation.md#"+anchor(strings.TrimSpace(h))]++
		}
	}
	known, n := names(t), 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			n++
			checkExpr(t, r.Alert, r.Expr, known)
			if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 40 || r.Labels["severity"] != "critical" && r.Labels["severity"] != "warning" {
				t.Errorf("%s: no summary, description or severity", r.Alert)
			}
			if link := r.Annotations["runbook_url"]; links[link] != 1 {
				t.Errorf("%s: the manual has %d headings %s, want one", r.Alert, links[link], link)
			}
		}
	}
	if n < 12 {
		t.Errorf("%d alerts", n)
	}
}

// TestPromtool: Prometheus takes the rules, and they fire when they should.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here, deploy/ci/prepare.sh has it: the alerts are not tried")
	}
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", rulesFile}, {"test", "rules", ruleTests}} {
		if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}
