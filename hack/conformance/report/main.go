// Enters a run of the official suite into tests/conformance: results.tsv has each test's last result, status.md is the same
// for people. What was not run keeps the result it had.
//
//	report -results DIR -run DIR-OF-JUNIT-FILES -focus REGEX
package main

import (
	"encoding/xml"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	passed  = "passed"
	failed  = "failed"
	refused = "refused"
	notRun  = "not run"
)

// result is a row of results.tsv.
type result struct {
	state    string
	date     string
	seconds  float64
	upstream float64 // what it takes upstream on two hosts of this kind
	name     string
	cause    string // of a failure: the suite's words; of a refusal: the feature
}

func (r result) group() string {
	group, _, _ := strings.Cut(strings.TrimPrefix(r.name, "[sig-"), "]")
	return group
}

// slow tells a test that waited for something that upstream does not wait for.
func (r result) slow() bool { return r.state == passed && r.seconds > 3*r.upstream+20 }

func main() {
	log.SetFlags(0)
	results := flag.String("results", "", "the folder with results.tsv, refused.tsv and status.md")
	run := flag.String("run", "", "the folder with the run's JUnit files")
	focus := flag.String("focus", ".", "which tests the run was for")
	flag.Parse()

	table, err := readResults(filepath.Join(*results, "results.tsv"))
	check(err)
	features, err := readRefused(filepath.Join(*results, "refused.tsv"))
	check(err)
	ran, err := readRun(*run)
	check(err)
	wanted, err := regexp.Compile(*focus)
	check(err)

	today := time.Now().Format("2006-01-02")
	var these []result
	missing := 0
	for i := range table {
		row := &table[i]
		if !wanted.MatchString(row.name) {
			continue
		}
		if feature := features.of(row.name); feature != "" {
			row.state, row.date, row.seconds, row.cause = refused, today, 0, feature
		} else if found, ok := ran[row.name]; ok {
			row.state, row.date, row.seconds, row.cause = found.state, today, found.seconds, found.cause
		} else {
			log.Printf("did not run: %s", row.name)
			missing++
			continue
		}
		these = append(these, *row)
	}
	check(writeResults(filepath.Join(*results, "results.tsv"), table))
	check(os.WriteFile(filepath.Join(*results, "status.md"), []byte(status(table)), 0o644))

	bad := 0
	for _, row := range these {
		if row.state == failed {
			bad++
			fmt.Printf("failed: %s\n        %s\n", row.name, row.cause)
		}
	}
	fmt.Print(groups(these))
	if len(these) == 0 || bad > 0 || missing > 0 {
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		log.Fatalf("error: %v", err)
	}
}

func lines(path string) ([][]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		rows = append(rows, strings.Split(line, "\t"))
	}
	return rows, nil
}

func readResults(path string) ([]result, error) {
	rows, err := lines(path)
	if err != nil {
		return nil, err
	}
	var table []result
	for _, row := range rows {
		if len(row) != 6 {
			return nil, fmt.Errorf("%s: not six columns: %q", path, row)
		}
		seconds, _ := strconv.ParseFloat(row[2], 64)
		upstream, err := strconv.ParseFloat(row[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		table = append(table, result{row[0], row[1], seconds, upstream, row[4], row[5]})
	}
	return table, nil
}

func writeResults(path string, table []result) error {
	var out strings.Builder
	for _, r := range table {
		fmt.Fprintf(&out, "%s\t%s\t%.1f\t%.1f\t%s\t%s\n", r.state, r.date, r.seconds, r.upstream, r.name, r.cause)
	}
	return os.WriteFile(path, []byte(out.String()), 0o644)
}

type feature struct {
	pattern *regexp.Regexp
	name    string
}

type features []feature

func readRefused(path string) (features, error) {
	rows, err := lines(path)
	if err != nil {
		return nil, err
	}
	var all features
	for _, row := range rows {
		if len(row) != 2 {
			return nil, fmt.Errorf("%s: not a pattern and a feature: %q", path, row)
		}
		pattern, err := regexp.Compile(row[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, feature{pattern, row[1]})
	}
	return all, nil
}

func (all features) of(test string) string {
	for _, f := range all {
		if f.pattern.MatchString(test) {
			return f.name
		}
	}
	return ""
}

// junit is what of ginkgo's files matters.
type junit struct {
	Cases []struct {
		Name    string    `xml:"name,attr"`
		Seconds float64   `xml:"time,attr"`
		Skipped *struct{} `xml:"skipped"`
		Failure *problem  `xml:"failure"`
		Error   *problem  `xml:"error"`
	} `xml:"testsuite>testcase"`
}

type problem struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func readRun(folder string) (map[string]result, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*junit*.xml"))
	if err != nil {
		return nil, err
	}
	ran := map[string]result{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var suites junit
		if err := xml.Unmarshal(text, &suites); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, c := range suites.Cases {
			name, isTest := strings.CutPrefix(c.Name, "[It] ")
			if !isTest || c.Skipped != nil {
				continue
			}
			name = strings.TrimSuffix(name, " [Conformance]")
			r := result{state: passed, seconds: c.Seconds}
			for _, p := range []*problem{c.Failure, c.Error} {
				if p != nil {
					r.state, r.cause = failed, cause(*p)
				}
			}
			ran[name] = r
		}
	}
	return ran, nil
}

var (
	// What differs from run to run: addresses in memory, names that are made up, times, places in the suite's source.
	changing = regexp.MustCompile(`0x[0-9a-f]+|-[a-z0-9]{5}\b|[0-9]{4}-[0-9]{2}-[0-9]{2}T\S+|\b[0-9a-f]{8}-[0-9a-f-]{27}`)
	place    = regexp.MustCompile(`In \[[A-Za-z]+\] at: .*`)
	blank    = regexp.MustCompile(`\s+`)
)

// cause puts a failure's message on one line of no more than 240 characters.
func cause(p problem) string {
	text := p.Message
	if text == "" {
		text = p.Text
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "[FAILED] ")
	text = blank.ReplaceAllString(place.ReplaceAllString(changing.ReplaceAllString(text, "…"), ""), " ")
	if short := []rune(text); len(short) > 240 {
		text = string(short[:239]) + "…"
	}
	return strings.TrimSpace(text)
}

// groups counts by special-interest group.
func groups(table []result) string {
	counts := map[string]map[string]int{}
	last := map[string]string{}
	var names []string
	for _, r := range table {
		g := r.group()
		if counts[g] == nil {
			counts[g] = map[string]int{}
			names = append(names, g)
		}
		counts[g][r.state]++
		// The oldest of what counts: a group is as fresh as the test that ran longest ago.
		if ran := r.state == passed || r.state == failed; ran && (last[g] == "" || r.date < last[g]) {
			last[g] = r.date
		}
	}
	sort.Strings(names)
	all := map[string]int{}
	var out strings.Builder
	row := func(cells ...any) { fmt.Fprintf(&out, "| %-16v | %6v | %6v | %7v | %7v | %5v | %10v |\n", cells...) }
	row("group", passed, failed, refused, notRun, "of", "run since")
	row("---", "---:", "---:", "---:", "---:", "---:", "---")
	for _, g := range names {
		c, total := counts[g], 0
		for state, n := range c {
			total += n
			all[state] += n
		}
		row(g, c[passed], c[failed], c[refused], c[notRun], total, last[g])
	}
	row("all", all[passed], all[failed], all[refused], all[notRun], len(table), "")
	return out.String()
}

func status(table []result) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# The official suite\n\nThe %d conformance tests of Kubernetes v1.35.4, unmodified, against two hosts. Written by `hack/conformance.sh`, from `results.tsv`.\n\n", len(table))
	out.WriteString(groups(table))
	section := func(title, about string, cells string, row func(result) (string, bool)) {
		var rows strings.Builder
		for _, r := range table {
			if text, ok := row(r); ok {
				rows.WriteString(text)
			}
		}
		if rows.Len() > 0 {
			fmt.Fprintf(&out, "\n## %s\n\n%s\n\n%s%s", title, about, cells, rows.String())
		}
	}
	section("Failed", "With the suite's words.", "| test | date | cause |\n| --- | --- | --- |\n", func(r result) (string, bool) {
		return fmt.Sprintf("| %s | %s | %s |\n", cell(r.name), r.date, cell(r.cause)), r.state == failed
	})
	section("Slow", "Passed, but waited for something: more than three times as long as upstream on such hosts.",
		"| test | seconds | upstream |\n| --- | ---: | ---: |\n", func(r result) (string, bool) {
			return fmt.Sprintf("| %s | %.0f | %.0f |\n", cell(r.name), r.seconds, r.upstream), r.slow()
		})
	section("Refused", "Not run: the feature is not in mk8s yet, which says so when it is asked for.",
		"| test | feature |\n| --- | --- |\n", func(r result) (string, bool) {
			return fmt.Sprintf("| %s | %s |\n", cell(r.name), cell(r.cause)), r.state == refused
		})
	return out.String()
}

// cell makes a text fit for a table of Markdown.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "[", "\\[", "<", "&lt;").Replace(text)
}
