// Every operation of pusher-http-go 1.3.0 but push, unmodified, against the server under test.
package main

import (
	"fmt"
	"os"
	"strings"

	pusher "github.com/pusher/pusher-http-go"

	"dunlin.test/clients/harness"
)

func main() {
	target := harness.FromEnvironment()
	check := &harness.Check{Library: "pusher-http-go 1.3.0"}
	client := pusher.Client{
		AppId: target.App.ID, Key: target.App.Key, Secret: target.App.Secret,
		Host: target.Host, EncryptionMasterKey: target.MasterKey,
	}
	var ann, bob *harness.Subscriber

	check.That("its subscribers connect", func() (err error) {
		if ann, err = harness.Connect(target); err != nil {
			return err
		}
		bob, err = harness.Connect(target)
		return err
	})
	if ann == nil || bob == nil {
		check.Exit()
	}

	check.That("Trigger delivers an object as its JSON and text and bytes as they are", func() error {
		if _, err := ann.Subscribe("old-go", nil); err != nil {
			return err
		}
		for event, data := range map[string]any{
			"object": map[string]string{"hello": "wörld <b>&"}, "text": "just text", "bytes": []byte(`{"raw": 1}`), "empty": "",
		} {
			if _, err := client.Trigger("old-go", event, data); err != nil {
				return err
			}
		}
		return harness.First(
			ann.AwaitText("object", "old-go", `{"hello":"wörld \u003cb\u003e\u0026"}`),
			ann.AwaitText("text", "old-go", "just text"),
			ann.AwaitText("bytes", "old-go", `{"raw": 1}`),
			ann.AwaitText("empty", "old-go", ""),
		)
	})

	check.That("Trigger answers without buffered event ids", func() error {
		answer, err := client.Trigger("old-go", "answered", "x")
		if err != nil {
			return err
		}
		return harness.Equal("event ids", len(answer.EventIds), 0)
	})

	check.That("TriggerMulti reaches ten channels, and the library refuses an eleventh", func() error {
		channels := make([]string, 10)
		for i := range channels {
			channels[i] = fmt.Sprintf("old-go-multi-%d", i)
			if _, err := ann.Subscribe(channels[i], nil); err != nil {
				return err
			}
		}
		if _, err := client.TriggerMulti(channels, "multi", "m"); err != nil {
			return err
		}
		for _, channel := range channels {
			if err := ann.AwaitText("multi", channel, "m"); err != nil {
				return err
			}
		}
		if _, err := client.TriggerMulti(append(channels, "one-more"), "multi", "m"); err == nil {
			return fmt.Errorf("eleven channels were accepted")
		}
		return nil
	})

	check.That("TriggerExclusive and TriggerMultiExclusive leave one socket out on every channel", func() error {
		for _, channel := range []string{"old-go-x", "old-go-y"} {
			if _, err := ann.Subscribe(channel, nil); err != nil {
				return err
			}
			if _, err := bob.Subscribe(channel, nil); err != nil {
				return err
			}
		}
		if _, err := client.TriggerExclusive("old-go-x", "one", "1", ann.SocketID); err != nil {
			return err
		}
		if _, err := client.TriggerMultiExclusive([]string{"old-go-x", "old-go-y"}, "two", "2", ann.SocketID); err != nil {
			return err
		}
		if _, err := client.TriggerMulti([]string{"old-go-x", "old-go-y"}, "fence", "f"); err != nil {
			return err
		}
		for _, subscriber := range []*harness.Subscriber{ann, bob} {
			for _, channel := range []string{"old-go-x", "old-go-y"} {
				if err := subscriber.AwaitText("fence", channel, "f"); err != nil {
					return err
				}
			}
		}
		return harness.First(
			harness.Equal("events at the excluded socket", ann.Count("one", "old-go-x")+ann.Count("two", "old-go-x")+ann.Count("two", "old-go-y"), 0),
			harness.Equal("events at the other socket", bob.Count("one", "old-go-x")+bob.Count("two", "old-go-x")+bob.Count("two", "old-go-y"), 3),
		)
	})

	check.That("TriggerBatch keeps the order and excludes per event", func() error {
		if _, err := ann.Subscribe("old-go-batch", nil); err != nil {
			return err
		}
		batch := []pusher.Event{{Channel: "old-go-batch", Name: "step", Data: "skipped", SocketId: &ann.SocketID}}
		for i := range 9 {
			batch = append(batch, pusher.Event{Channel: "old-go-batch", Name: "step", Data: fmt.Sprint(i)})
		}
		if _, err := client.TriggerBatch(batch); err != nil {
			return err
		}
		if _, err := client.Trigger("old-go-batch", "fence", ""); err != nil {
			return err
		}
		return harness.First(
			ann.AwaitText("fence", "old-go-batch", ""),
			harness.Equal("steps", strings.Join(ann.Texts("step", "old-go-batch"), ""), "012345678"),
		)
	})

	check.That("AuthenticatePrivateChannel admits to a private channel", func() error {
		authorization, err := client.AuthenticatePrivateChannel(ann.Params("private-old-go"))
		if err != nil {
			return err
		}
		frame, err := ann.Subscribe("private-old-go", authorization)
		if err != nil {
			return err
		}
		text, err := frame.Text()
		return harness.First(err, harness.Equal("confirmation", text, "{}"))
	})

	check.That("AuthenticatePresenceChannel admits a member, whom the queries then show", func() error {
		authorization, err := client.AuthenticatePresenceChannel(ann.Params("presence-old-go"), pusher.MemberData{UserId: "10", UserInfo: map[string]string{"name": "Ann"}})
		if err != nil {
			return err
		}
		frame, err := ann.Subscribe("presence-old-go", authorization)
		if err != nil {
			return err
		}
		text, err := frame.Text()
		if err := harness.First(err, harness.Equal("members", text, `{"presence":{"count":1,"ids":["10"],"hash":{"10":{"name":"Ann"}}}}`)); err != nil {
			return err
		}
		users, err := client.GetChannelUsers("presence-old-go")
		if err != nil {
			return err
		}
		channels, err := client.Channels(map[string]string{"filter_by_prefix": "presence-old-go", "info": "user_count"})
		if err != nil {
			return err
		}
		channel, err := client.Channel("presence-old-go", map[string]string{"info": "user_count,subscription_count"})
		if err != nil {
			return err
		}
		return harness.First(
			harness.Equal("users", users.List, []pusher.User{{Id: "10"}}),
			harness.Equal("channels", channels.Channels, map[string]pusher.ChannelListItem{"presence-old-go": {UserCount: 1}}),
			harness.Equal("channel", *channel, pusher.Channel{Name: "presence-old-go", Occupied: true, UserCount: 1, SubscriptionCount: 1}),
		)
	})

	check.That("Channels lists without options, Channel and GetChannelUsers know an empty channel", func() error {
		channels, err := client.Channels(nil)
		if err != nil {
			return err
		}
		if _, found := channels.Channels["old-go"]; !found {
			return fmt.Errorf("old-go is not among %v", channels.Channels)
		}
		channel, err := client.Channel("old-go-nobody", nil)
		if err != nil {
			return err
		}
		users, err := client.GetChannelUsers("presence-old-go-nobody")
		if err != nil {
			return err
		}
		return harness.First(
			harness.Equal("channel", *channel, pusher.Channel{Name: "old-go-nobody"}),
			harness.Equal("users", len(users.List), 0),
		)
	})

	check.That("an encrypted trigger arrives sealed and opens with the master key", func() error {
		channel := "private-encrypted-old-go"
		authorization, err := client.AuthenticatePrivateChannel(ann.Params(channel))
		if err != nil {
			return err
		}
		if _, err := ann.Subscribe(channel, authorization); err != nil {
			return err
		}
		if _, err := client.Trigger(channel, "sealed", "open sesame"); err != nil {
			return err
		}
		frame, err := ann.Await("sealed", channel)
		if err != nil {
			return err
		}
		text, err := frame.Text()
		if err != nil {
			return err
		}
		plain, err := harness.Open(channel, target.MasterKey, text)
		return harness.First(err, harness.Equal("plain text", plain, "open sesame"))
	})

	check.That("a client made from a URL and one made from the environment work", func() error {
		fromURL, err := pusher.ClientFromURL(target.URL())
		if err != nil {
			return err
		}
		if err := os.Setenv("PUSHER_URL", target.URL()); err != nil {
			return err
		}
		fromEnvironment, err := pusher.ClientFromEnv("PUSHER_URL")
		if err != nil {
			return err
		}
		if _, err := fromURL.Trigger("old-go", "from-url", "u"); err != nil {
			return err
		}
		if _, err := fromEnvironment.Trigger("old-go", "from-env", "e"); err != nil {
			return err
		}
		return harness.First(ann.AwaitText("from-url", "old-go", "u"), ann.AwaitText("from-env", "old-go", "e"))
	})

	check.That("refusals arrive as the status and the server's text", func() error {
		refused := func(secret, key, appID, prefix, text string) error {
			bad := pusher.Client{AppId: appID, Key: key, Secret: secret, Host: target.Host}
			_, err := bad.Trigger("old-go", "refused", "x")
			if err == nil {
				return fmt.Errorf("key %q, app %q was accepted", key, appID)
			}
			if !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), text) {
				return fmt.Errorf("the error is %q, expected %q with %q", err, prefix, text)
			}
			return nil
		}
		app, disabled := target.App, target.Disabled
		return harness.First(
			refused("wrong", app.Key, app.ID, "Status Code: 401 - ", "Invalid signature"),
			refused(app.Secret, "unknown", app.ID, "Status Code: 401 - ", "Unknown auth_key"),
			refused(app.Secret, app.Key, "999999", "Status Code: 404 - ", ""),
			refused(disabled.Secret, disabled.Key, disabled.ID, "Status Code: 403 - ", ""),
		)
	})

	check.Exit()
}
