// Command record asks upstream's own scheduler about one pending pod in each of many small clusters and writes down what it says: which
// nodes it would take and how it scores them, which it refuses and in which words, and whom it would evict. mk8s's scheduler is held to
// these answers. hack/update-scheduler-answers.sh runs it; the shape of an answer is described in answer.go.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// families are the files that are written, each with the questions that aim at one part of the rules.
var families = map[string]func(*family){}

func main() {
	out := flag.String("out", "", "directory for one FAMILY.json each")
	flag.Parse()
	klog.SetLogger(logr.Discard())
	names := flag.Args()
	if len(names) == 0 {
		for name := range families {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	total := 0
	for _, name := range names {
		fill, known := families[name]
		if !known {
			log.Fatalf("no family %s", name)
		}
		f := newFamily(name)
		fill(f)
		if err := record(f, filepath.Join(*out, name+".json")); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		total += len(f.questions)
		fmt.Printf("%s: %d\n", name, len(f.questions))
	}
	fmt.Printf("%d clusters\n", total)
}

// record asks all questions of a family, eight at a time, and writes them with their answers, one a line.
func record(f *family, path string) error {
	answers := make([]recorded, len(f.questions))
	failures := make([]error, len(f.questions))
	var asking sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, q := range f.questions {
		asking.Add(1)
		go func() {
			defer asking.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i].question = *q
			answers[i].answer, failures[i] = settled(*q)
		}()
	}
	asking.Wait()
	for i, err := range failures {
		if err != nil {
			return fmt.Errorf("%s: %w", f.questions[i].Name, err)
		}
	}
	return write(answers, path)
}

func write(answers []recorded, path string) error {
	var text bytes.Buffer
	text.WriteString("[")
	for i, each := range answers {
		if i > 0 {
			text.WriteString(",")
		}
		text.WriteString("\n")
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(each); err != nil {
			return err
		}
		text.Write(bytes.TrimSuffix(line.Bytes(), []byte("\n")))
	}
	text.WriteString("\n]\n")
	return os.WriteFile(path, text.Bytes(), 0o644)
}
