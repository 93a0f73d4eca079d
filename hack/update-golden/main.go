// Records what upstream's API server answers: sends each area of corpus/ to one that has just started and writes request
// and normalised answer, a pair a line, to tests/api/golden/AREA.jsonl.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var works = regexp.MustCompile(`(^|/)(define|stricter|create-(least|full|protobuf)|(merge|json|strategic)-patch|put|status-put|apply-create)$`)

func main() {
	log.SetFlags(0)
	out := flag.String("out", "", "the folder of the recorded areas")
	script := flag.String("upstream", "", "the script that starts upstream's API server")
	port := flag.Int("port", 18443, "a port of loopback; etcd takes the two below")
	flag.Parse()
	areas := flag.Args()
	if len(areas) == 0 {
		files, err := filepath.Glob("corpus/*.yaml")
		must(err)
		for _, file := range files {
			areas = append(areas, strings.TrimSuffix(filepath.Base(file), ".yaml"))
		}
	}
	total := 0
	for _, area := range areas {
		steps, err := load(area)
		if err != nil {
			log.Fatalf("%s: %v", area, err)
		}
		pairs, err := record(*script, *port, steps)
		if err != nil {
			log.Fatalf("%s: %v", area, err)
		}
		must(write(filepath.Join(*out, area+".jsonl"), pairs))
		fmt.Printf("%s: %d\n", area, len(pairs))
		total += len(pairs)
	}
	fmt.Printf("%d pairs\n", total)
}

func record(script string, port int, steps []Step) ([]Pair, error) {
	server, err := start(script, port)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	session := newSession(server)
	seen := map[string]bool{}
	var pairs []Pair
	for _, step := range steps {
		if seen[step.Name] {
			return nil, fmt.Errorf("two steps are named %s", step.Name)
		}
		seen[step.Name] = true
		pair, err := session.run(step)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.Name, err)
		}
		// A step whose name says that it does something, and that upstream refuses, is a mistake of the corpus more often than not.
		if works.MatchString(step.Name) && pair.Answer.Code >= 300 {
			log.Printf("%s: %d %.300v", step.Name, pair.Answer.Code, pair.Answer.Body)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// write replaces the file: one pair a line, keys in order, nothing escaped that need not be.
func write(path string, pairs []Pair) error {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for _, pair := range pairs {
		if err := encoder.Encode(pair); err != nil {
			return err
		}
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
