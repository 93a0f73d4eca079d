package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// The headers of an answer that are compared.
var kept = []string{"Content-Type", "Allow", "Location", "Retry-After", "Www-Authenticate", "Content-Encoding"}

func init() {
	must(metav1.AddMetaToScheme(scheme.Scheme))
	must(metav1beta1.AddMetaToScheme(scheme.Scheme))
	must(apidiscovery.AddToScheme(scheme.Scheme))
	must(apiextensions.AddToScheme(scheme.Scheme))
}

const protobufType = "application/vnd.kubernetes.protobuf"

// A Session is an area's requests, one after the other.
type Session struct {
	up      *Upstream
	values  map[string]string
	watches map[string]*watch
}

type watch struct {
	cancel context.CancelFunc
	lines  chan []byte
}

func newSession(up *Upstream) *Session {
	return &Session{up: up, values: map[string]string{}, watches: map[string]*watch{}}
}

// run sends a step until its answer is what is waited for; most wait for none.
func (s *Session) run(step Step) (Pair, error) {
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		pair, err := s.send(step)
		if err != nil || pair.Answer.holds(step.Until) {
			return pair, err
		}
		if time.Now().After(deadline) {
			return pair, fmt.Errorf("%v does not come: %d %.2000v", step.Until, pair.Answer.Code, pair.Answer.Body)
		}
	}
}

// holds says whether an answer has the values, as Request.Until names them.
func (answer Answer) holds(values map[string]any) bool {
	for pointer, wanted := range values {
		value, there := find(answer.Body, pointer)
		if parts, ok := answer.Body.(map[string]any); ok && !there {
			value, there = parts[pointer]
		}
		if pointer == "" {
			value, there = answer.Text, true
		}
		if there != (wanted != nil) || wanted != nil && wanted != "ANY" && fmt.Sprint(value) != fmt.Sprint(wanted) {
			return false
		}
	}
	return true
}

func (s *Session) send(step Step) (Pair, error) {
	if step.Protobuf {
		encoded, err := encodeProtobuf(s.fill(string(step.Body)))
		if err != nil {
			return Pair{}, err
		}
		step.Base64, step.Body = encoded, nil
		step.Headers = with(step.Headers, "Content-Type", protobufType)
	}
	pair := Pair{Name: step.Name, Request: step.Request, Keep: step.Keep}
	if step.Await != "" {
		events, err := s.await(step.Await)
		pair.Answer = Answer{Code: 200, Events: events}
		return pair, err
	}
	request, cancel, err := s.request(step)
	if err != nil {
		return pair, err
	}
	response, err := s.up.client.Do(request)
	if err != nil {
		cancel()
		return pair, err
	}
	pair.Answer.Code = response.StatusCode
	for _, name := range kept {
		if value := response.Header.Get(name); value != "" {
			pair.Answer.Headers = with(pair.Answer.Headers, strings.ToLower(name), maskText(value))
		}
	}
	pair.Answer.Warning = response.Header.Values("Warning")
	if isWatch(step.Path) && response.StatusCode == 200 {
		w := follow(response.Body, cancel)
		if s.watches[step.Open] = w; step.Open == "" {
			defer cancel()
			pair.Answer.Events, err = w.until()
		}
		return pair, err
	}
	defer cancel()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return pair, err
	}
	if step.Settle {
		time.Sleep(200 * time.Millisecond)
	}
	return pair, s.keep(&pair, body)
}

func (s *Session) request(step Step) (*http.Request, context.CancelFunc, error) {
	method := step.Method
	if method == "" {
		method = "GET"
	}
	body := []byte(s.fill(string(step.Body) + step.Text))
	if step.Base64 != nil {
		body = step.Base64
	}
	within, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	if isWatch(step.Path) {
		cancel()
		within, cancel = context.WithCancel(context.Background())
	}
	request, err := http.NewRequestWithContext(within, method, s.up.url+s.fill(step.Path), bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.up.token)
	request.Header.Set("User-Agent", "golden")
	request.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, value := range step.Headers {
		if value == "" {
			request.Header.Del(name)
		} else {
			request.Header.Set(name, value)
		}
	}
	return request, cancel, nil
}

// keep puts the body into the answer as a tree that is masked, or as text, and takes from it what later steps need.
func (s *Session) keep(pair *Pair, body []byte) error {
	kind := strings.TrimSpace(strings.Split(pair.Answer.Headers["content-type"], ";")[0])
	var trees []any
	var err error
	switch {
	case len(body) == 0:
		return nil
	case kind == protobufType:
		var tree any
		tree, err = decodeProtobuf(body)
		trees = []any{tree}
	case kind == "application/yaml":
		var tree any
		err = yaml.Unmarshal(body, &tree)
		trees = []any{tree}
	// The index of OpenAPI's documents is called text.
	case kind == "application/json", kind == "text/plain" && bytes.HasPrefix(body, []byte("{")):
		trees, err = decodeJSON(body)
	default:
		pair.Answer.Text = maskText(string(body))
		return nil
	}
	if err != nil {
		return err
	}
	for name, pointer := range pair.Keep {
		value, ok := find(trees[0], pointer)
		if !ok {
			return fmt.Errorf("there is no %s to keep in %s", pointer, body)
		}
		s.values[name] = fmt.Sprint(value)
	}
	if pair.Request.Pick != nil {
		trees[0] = picked(trees[0], pair.Request.Pick)
	}
	pair.Answer.Body = mask(trees[0])
	return nil
}

func isWatch(path string) bool {
	return strings.Contains(path, "watch=true") || strings.Contains(path, "/watch/")
}

// follow reads a watch's lines as they come.
func follow(body io.ReadCloser, cancel context.CancelFunc) *watch {
	w := &watch{cancel: cancel, lines: make(chan []byte, 1000)}
	go func() {
		defer body.Close()
		defer close(w.lines)
		reader := bufio.NewReader(body)
		for {
			line, err := reader.ReadBytes('\n')
			if err != nil {
				return
			}
			w.lines <- line
		}
	}()
	return w
}

// await reads on a watch that an earlier step has opened.
func (s *Session) await(name string) ([]any, error) {
	w := s.watches[name]
	if w == nil {
		return nil, fmt.Errorf("no watch %s is open", name)
	}
	return w.until()
}

// until gives the events that have come and come until nothing does for a while.
func (w *watch) until() ([]any, error) {
	events := []any{}
	for {
		select {
		case line, open := <-w.lines:
			if !open {
				return events, nil
			}
			trees, err := decodeJSON(line)
			if err != nil {
				return nil, err
			}
			events = append(events, mask(trees[0]))
		case <-time.After(400 * time.Millisecond):
			return events, nil
		}
	}
}

// fill replaces each ${name} by what was kept under it.
func (s *Session) fill(text string) string {
	for name, value := range s.values {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text
}

// decodeJSON reads all documents of a body: a watch's answer has several.
func decodeJSON(body []byte) ([]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var trees []any
	for {
		var tree any
		err := decoder.Decode(&tree)
		if err == io.EOF {
			return trees, nil
		}
		if err != nil {
			return nil, err
		}
		trees = append(trees, tree)
	}
}

func encodeProtobuf(body string) ([]byte, error) {
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(body), nil, nil)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(object, &out)
	return out.Bytes(), err
}

func decodeProtobuf(body []byte) (any, error) {
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	object, _, err := serializer.Decode(body, nil, nil)
	if runtime.IsMissingVersion(err) {
		// Discovery's documents of old do not say that they are v1's.
		if object, _, err = serializer.Decode(body, &schema.GroupVersionKind{Version: "v1"}, nil); err == nil {
			object.GetObjectKind().SetGroupVersionKind(object.GetObjectKind().GroupVersionKind().GroupKind().WithVersion(""))
		}
	}
	if err != nil {
		return nil, err
	}
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	return tree, err
}

func with(headers map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	for key, value := range headers {
		out[key] = value
	}
	return out
}
