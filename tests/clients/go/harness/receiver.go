package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Hook is one request as it came.
type Hook struct {
	Path   string
	Header http.Header
	Body   []byte
}

// With is the hook with another value of one header.
func (h Hook) With(header, value string) Hook {
	h.Header = h.Header.Clone()
	h.Header.Set(header, value)
	return h
}

// Receiver is the customer's side of webhooks: it takes every request and remembers it.
type Receiver struct {
	lock  sync.Mutex
	hooks []Hook
}

// Receive listens until the program ends.
func Receive(endpoints Endpoints) (*Receiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:"+endpoints.Port)
	if err != nil {
		return nil, err
	}
	receiver := &Receiver{}
	go http.Serve(listener, receiver)
	return receiver, nil
}

func (r *Receiver) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		answer.WriteHeader(http.StatusBadRequest)
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	id := request.Header.Get("Webhook-Id")
	isKnown := func(hook Hook) bool { return hook.Path == request.URL.Path && hook.Header.Get("Webhook-Id") == id }
	if !slices.ContainsFunc(r.hooks, isKnown) { // what comes again counts once
		r.hooks = append(r.hooks, Hook{request.URL.Path, request.Header, body})
	}
	answer.WriteHeader(http.StatusNoContent)
}

// About returns the hooks of one endpoint about one channel, once they hold so many events of it besides counts.
func (r *Receiver) About(path, channel string, count int) ([]Hook, error) {
	end := time.Now().Add(deadline)
	for {
		hooks, events := r.about(path, channel)
		if events >= count {
			return hooks, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("waited %s in vain for %d events at %s, there were %d", deadline, count, path, events)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *Receiver) about(path, channel string) (hooks []Hook, events int) {
	r.lock.Lock()
	defer r.lock.Unlock()
	for _, hook := range r.hooks {
		if hook.Path != path || !bytes.Contains(hook.Body, []byte(`"`+channel+`"`)) {
			continue
		}
		hooks = append(hooks, hook)
		var body struct {
			Events []struct{ Name, Channel string }
		}
		if json.Unmarshal(hook.Body, &body) != nil {
			continue // for the libraries to complain of
		}
		for _, event := range body.Events {
			if event.Channel == channel && event.Name != "subscription_count" {
				events++
			}
		}
	}
	return hooks, events
}
