package main

import "encoding/json"

// A Request as it is kept: `${name}` in its path and body stands for what an earlier answer was asked to keep.
type Request struct {
	// GET where it is empty.
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	// Besides Accept and Content-Type of JSON, which they replace.
	Headers map[string]string `json:"headers,omitempty"`
	// One of the three at most: JSON, text as it is, or bytes.
	Body   json.RawMessage `json:"body,omitempty"`
	Text   string          `json:"text,omitempty"`
	Base64 []byte          `json:"base64,omitempty"`
	// Opens a watch of this name and goes on; `await` reads what has come of it since and `close` ends it.
	Open  string `json:"open,omitempty"`
	Await string `json:"await,omitempty"`
	// Sent again until the answer has these values at these places, as JSON pointers: what follows from a write may take a
	// moment. ANY stands for any value, null for none; at the place "" is the whole answer, where it is text.
	Until map[string]any `json:"until,omitempty"`
	// Of the answer's tree, what these JSON pointers point at alone is kept, by pointer, without prose: parts of long documents.
	Pick []string `json:"pick,omitempty"`
}

// An Answer as it is kept: what differs from one run to the next is masked.
type Answer struct {
	Code    int               `json:"code"`
	Headers map[string]string `json:"headers,omitempty"`
	Warning []string          `json:"warning,omitempty"`
	Body    any               `json:"body,omitempty"`
	Text    string            `json:"text,omitempty"`
	// A watch's events.
	Events []any `json:"events,omitempty"`
}

// A Pair is a line of a recorded area.
type Pair struct {
	Name    string            `json:"name"`
	Request Request           `json:"request"`
	Keep    map[string]string `json:"keep,omitempty"`
	Answer  Answer            `json:"answer"`
}

// A Step is a request of the corpus.
type Step struct {
	Name string `json:"name"`
	Request
	// Name of a placeholder → JSON pointer into the answer's body.
	Keep map[string]string `json:"keep,omitempty"`
	// The body goes as protobuf.
	Protobuf bool `json:"protobuf,omitempty"`
	// Upstream takes a moment until what this wrote is in effect (informers of authorization and admission).
	Settle bool `json:"settle,omitempty"`
}
