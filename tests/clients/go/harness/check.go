// Package harness is what both generations of the Go server library are judged with:
// assertions printed as sentences, and a bare subscriber that shows what was delivered.
package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
)

// Check prints `ok - sentence` or `not ok - sentence: reason` per behaviour.
type Check struct {
	Library string
	failed  int
}

// That runs one behaviour, which holds when body returns nil.
func (c *Check) That(sentence string, body func() error) {
	if err := body(); err != nil {
		c.failed++
		fmt.Printf("not ok - %s: %s: %v\n", c.Library, sentence, err)
		return
	}
	fmt.Printf("ok - %s: %s\n", c.Library, sentence)
}

// Exit ends the program: 1 when any behaviour failed.
func (c *Check) Exit() {
	if c.failed > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// Equal complains unless both values are deeply equal.
func Equal(what string, actual, expected any) error {
	if reflect.DeepEqual(actual, expected) {
		return nil
	}
	return fmt.Errorf("%s is %#v, expected %#v", what, actual, expected)
}

// First returns the first complaint.
func First(complaints ...error) error {
	for _, complaint := range complaints {
		if complaint != nil {
			return complaint
		}
	}
	return nil
}

// App is one app of the server under test.
type App struct{ ID, Key, Secret string }

// Target is the server under test, as `cargo xtask test` describes it in the environment.
type Target struct {
	Host      string // host:port
	App       App
	Disabled  App
	Told      App // what happens in it is told to the receiver
	Receiver  Endpoints
	MasterKey string // 32 bytes
}

// Endpoints are those of Told, on this machine: `/app-secret` has no secret but the app's, `/own-secret` has both of these.
type Endpoints struct{ Port, Secret, PreviousSecret string }

// FromEnvironment reads the target and ends the program when it is not described.
func FromEnvironment() Target {
	return Target{
		Host:     required("DUNLIN_TEST_HOST") + ":" + required("DUNLIN_TEST_PORT"),
		App:      app("DUNLIN_TEST"),
		Disabled: app("DUNLIN_TEST_DISABLED"),
		Told:     app("DUNLIN_TEST_WEBHOOKS"),
		Receiver: Endpoints{
			required("DUNLIN_TEST_RECEIVER_PORT"), required("DUNLIN_TEST_RECEIVER_SECRET"), required("DUNLIN_TEST_RECEIVER_PREVIOUS_SECRET"),
		},
		MasterKey: "a master key of thirty-two bytes",
	}
}

// URL is the target in the form of a `PUSHER_URL`.
func (t Target) URL() string {
	return fmt.Sprintf("http://%s:%s@%s/apps/%s", t.App.Key, t.App.Secret, t.Host, t.App.ID)
}

func app(prefix string) App {
	return App{required(prefix + "_APP_ID"), required(prefix + "_APP_KEY"), required(prefix + "_APP_SECRET")}
}

func required(name string) string {
	value := os.Getenv(name)
	if value == "" {
		fmt.Printf("%s is not set: run this suite through `cargo xtask test`\n", name)
		os.Exit(2)
	}
	return value
}

// JSON is a value as compact JSON text.
func JSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
