package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Upstream is a server that has just started.
type Upstream struct {
	script, dir, url, token string
	client                  *http.Client
}

func start(script string, port int) (*Upstream, error) {
	dir, err := os.MkdirTemp("", "mk8s-golden-")
	if err != nil {
		return nil, err
	}
	up := &Upstream{script: script, dir: filepath.Join(dir, "up")}
	command := exec.Command(script, "up", up.dir, strconv.Itoa(port))
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("upstream does not start: %w", err)
	}
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(up.dir, name))
		must(err)
		return strings.TrimSpace(string(content))
	}
	up.url, up.token = read("url"), read("token")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read("ca.crt")))
	up.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return up, nil
}

func (up *Upstream) stop() {
	up.client.CloseIdleConnections()
	must(exec.Command(up.script, "down", up.dir).Run())
	must(os.RemoveAll(filepath.Dir(up.dir)))
}
