// Package tap writes results in the Test Anything Protocol, version 13, under the names of the
// module github.com/mndrix/tap-go, which Debian does not package: as far as OCI runtime-tools'
// validation programs call it.
package tap

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
)

// T numbers results and writes them.
type T struct {
	shared *count
	todo   bool
}

type count struct {
	sync.Mutex
	results int
}

// New begins at result 1.
func New() *T { return &T{shared: &count{}} }

// Header writes the protocol's version, and the plan where the number of results is known.
func (t *T) Header(planned int) {
	fmt.Println("TAP version 13")
	if planned > 0 {
		fmt.Printf("1..%d\n", planned)
	}
}

// AutoPlan writes the plan at the end.
func (t *T) AutoPlan() { fmt.Printf("1..%d\n", t.shared.results) }

// Ok writes a result.
func (t *T) Ok(passed bool, description string) {
	word, directive := "ok", ""
	if !passed {
		word = "not ok"
	}
	if t.todo {
		directive = " # TODO"
	}
	t.result(word, description+directive)
}

// Pass is a good result.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail is a bad one.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip writes results of what is not tried.
func (t *T) Skip(results int, reason string) {
	for ; results > 0; results-- {
		t.result("ok", "# SKIP "+reason)
	}
}

// Todo marks the results that follow as not expected to be good.
func (t *T) Todo() *T { return &T{shared: t.shared, todo: true} }

// Diagnostic writes a comment.
func (t *T) Diagnostic(text string) {
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		fmt.Println("# " + line)
	}
}

// Diagnosticf writes a formatted comment.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML writes details of the last result; JSON is YAML.
func (t *T) YAML(details interface{}) error {
	text, err := json.MarshalIndent(details, "  ", "  ")
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, "  ---\n  %s\n  ...\n", text)
	}
	return err
}

func (t *T) result(word, description string) {
	t.shared.Lock()
	defer t.shared.Unlock()
	t.shared.results++
	// A line is one result, and "#" begins a directive.
	description = strings.ReplaceAll(description, "\n", " ")
	fmt.Printf("%s %d - %s\n", word, t.shared.results, description)
}
