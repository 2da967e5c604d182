// Every operation of pusher-http-go 5.1.1, unmodified, against the server under test.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	pusher "github.com/pusher/pusher-http-go/v5"

	"dunlin.test/clients/harness"
)

func main() {
	target := harness.FromEnvironment()
	check := &harness.Check{Library: "pusher-http-go 5.1.1"}
	client := pusher.Client{
		AppID: target.App.ID, Key: target.App.Key, Secret: target.App.Secret, Host: target.Host,
		EncryptionMasterKeyBase64: base64.StdEncoding.EncodeToString([]byte(target.MasterKey)),
	}
	both, users, counts := "user_count,subscription_count", "user_count", "subscription_count"
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
		if _, err := ann.Subscribe("new-go", nil); err != nil {
			return err
		}
		for event, data := range map[string]any{
			"object": map[string]any{"hello": "wörld", "n": 1.5}, "text": "just text", "bytes": []byte(`{"raw": 1}`), "empty": "",
		} {
			if err := client.Trigger("new-go", event, data); err != nil {
				return err
			}
		}
		return harness.First(
			ann.AwaitText("object", "new-go", `{"hello":"wörld","n":1.5}`),
			ann.AwaitText("text", "new-go", "just text"),
			ann.AwaitText("bytes", "new-go", `{"raw": 1}`),
			ann.AwaitText("empty", "new-go", ""),
		)
	})

	check.That("TriggerMulti reaches a hundred channels", func() error {
		channels := make([]string, 100)
		for i := range channels {
			channels[i] = fmt.Sprintf("new-go-multi-%d", i)
			if _, err := ann.Subscribe(channels[i], nil); err != nil {
				return err
			}
		}
		if err := client.TriggerMulti(channels, "multi", "m"); err != nil {
			return err
		}
		for _, channel := range channels {
			if err := ann.AwaitText("multi", channel, "m"); err != nil {
				return err
			}
		}
		return nil
	})

	check.That("TriggerExclusive and TriggerMultiExclusive leave one socket out on every channel", func() error {
		for _, channel := range []string{"new-go-x", "new-go-y"} {
			if _, err := ann.Subscribe(channel, nil); err != nil {
				return err
			}
			if _, err := bob.Subscribe(channel, nil); err != nil {
				return err
			}
		}
		if err := client.TriggerExclusive("new-go-x", "one", "1", ann.SocketID); err != nil {
			return err
		}
		if err := client.TriggerMultiExclusive([]string{"new-go-x", "new-go-y"}, "two", "2", ann.SocketID); err != nil {
			return err
		}
		if err := client.TriggerMulti([]string{"new-go-x", "new-go-y"}, "fence", "f"); err != nil {
			return err
		}
		for _, subscriber := range []*harness.Subscriber{ann, bob} {
			for _, channel := range []string{"new-go-x", "new-go-y"} {
				if err := subscriber.AwaitText("fence", channel, "f"); err != nil {
					return err
				}
			}
		}
		return harness.First(
			harness.Equal("events at the excluded socket", ann.Count("one", "new-go-x")+ann.Count("two", "new-go-x")+ann.Count("two", "new-go-y"), 0),
			harness.Equal("events at the other socket", bob.Count("one", "new-go-x")+bob.Count("two", "new-go-x")+bob.Count("two", "new-go-y"), 3),
		)
	})

	check.That("AuthorizePrivateChannel admits to a private channel", func() error {
		authorization, err := client.AuthorizePrivateChannel(ann.Params("private-new-go"))
		if err != nil {
			return err
		}
		_, err = ann.Subscribe("private-new-go", authorization)
		return err
	})

	check.That("AuthorizePresenceChannel admits members, whom the queries then show", func() error {
		for id, subscriber := range map[string]*harness.Subscriber{"10": ann, "11": bob} {
			authorization, err := client.AuthorizePresenceChannel(subscriber.Params("presence-new-go"), pusher.MemberData{UserID: id})
			if err != nil {
				return err
			}
			if _, err := subscriber.Subscribe("presence-new-go", authorization); err != nil {
				return err
			}
		}
		members, err := client.GetChannelUsers("presence-new-go")
		if err != nil {
			return err
		}
		prefix := "presence-new-go"
		channels, err := client.Channels(pusher.ChannelsParams{FilterByPrefix: &prefix, Info: &users})
		if err != nil {
			return err
		}
		channel, err := client.Channel("presence-new-go", pusher.ChannelParams{Info: &both})
		if err != nil {
			return err
		}
		found := map[string]bool{}
		for _, user := range members.List {
			found[user.ID] = true
		}
		return harness.First(
			harness.Equal("users", found, map[string]bool{"10": true, "11": true}),
			harness.Equal("channels", channels.Channels, map[string]pusher.ChannelListItem{"presence-new-go": {UserCount: 2}}),
			harness.Equal("channel", *channel, pusher.Channel{Name: "presence-new-go", Occupied: true, UserCount: 2, SubscriptionCount: 2}),
		)
	})

	check.That("TriggerWithParams and TriggerMultiWithParams answer with the counts asked for", func() error {
		one, err := client.TriggerWithParams("presence-new-go", "asked", "x", pusher.TriggerParams{Info: &both})
		if err != nil {
			return err
		}
		multi, err := client.TriggerMultiWithParams([]string{"new-go", "new-go-nobody"}, "asked", "x", pusher.TriggerParams{Info: &counts, SocketID: &bob.SocketID})
		if err != nil {
			return err
		}
		return harness.First(
			harness.Equal("one", harness.JSON(one), `{"channels":{"presence-new-go":{"user_count":2,"subscription_count":2}}}`),
			harness.Equal("multi", harness.JSON(multi), `{"channels":{"new-go":{"subscription_count":1},"new-go-nobody":{"subscription_count":0}}}`),
		)
	})

	check.That("TriggerBatch keeps the order, excludes per event and answers counts per event", func() error {
		if _, err := ann.Subscribe("new-go-batch", nil); err != nil {
			return err
		}
		batch := []pusher.Event{{Channel: "new-go-batch", Name: "step", Data: "skipped", SocketID: &ann.SocketID, Info: &counts}}
		for i := range 7 {
			batch = append(batch, pusher.Event{Channel: "new-go-batch", Name: "step", Data: fmt.Sprint(i)})
		}
		batch = append(batch,
			pusher.Event{Channel: "new-go-batch", Name: "end", Data: "e"},
			pusher.Event{Channel: "presence-new-go", Name: "fence", Data: "f", Info: &both})
		answer, err := client.TriggerBatch(batch)
		if err != nil {
			return err
		}
		return harness.First(
			ann.AwaitText("fence", "presence-new-go", "f"),
			ann.AwaitText("end", "new-go-batch", "e"),
			harness.Equal("steps", strings.Join(ann.Texts("step", "new-go-batch"), ""), "0123456"),
			harness.Equal("answer", harness.JSON(answer), `{"batch":[{"subscription_count":1},{},{},{},{},{},{},{},{},{"user_count":2,"subscription_count":2}]}`),
		)
	})

	check.That("encrypted triggers, alone and in a batch, arrive sealed and open with the master key", func() error {
		channel := "private-encrypted-new-go"
		authorization, err := client.AuthorizePrivateChannel(ann.Params(channel))
		if err != nil {
			return err
		}
		if _, err := ann.Subscribe(channel, authorization); err != nil {
			return err
		}
		if err := client.Trigger(channel, "alone", "open sesame"); err != nil {
			return err
		}
		if _, err := client.TriggerBatch([]pusher.Event{{Channel: channel, Name: "batched", Data: "open again"}}); err != nil {
			return err
		}
		for event, expected := range map[string]string{"alone": "open sesame", "batched": "open again"} {
			frame, err := ann.Await(event, channel)
			if err != nil {
				return err
			}
			text, err := frame.Text()
			if err != nil {
				return err
			}
			plain, err := harness.Open(channel, target.MasterKey, text)
			if err := harness.First(err, harness.Equal("plain text", plain, expected)); err != nil {
				return err
			}
		}
		return nil
	})

	check.That("AuthenticateUser signs a user in, whom SendToUser reaches", func() error {
		authentication, err := client.AuthenticateUser(ann.Params("ignored"), map[string]any{"id": "new-go-ann"})
		if err != nil {
			return err
		}
		if err := ann.SignIn(authentication); err != nil {
			return err
		}
		if _, err := ann.Subscribe("#server-to-user-new-go-ann", nil); err != nil {
			return err
		}
		if err := client.SendToUser("new-go-ann", "mail", "hi"); err != nil {
			return err
		}
		return ann.AwaitText("mail", "#server-to-user-new-go-ann", "hi")
	})

	check.That("Channels lists without options and never a user's own channel", func() error {
		channels, err := client.Channels(pusher.ChannelsParams{})
		if err != nil {
			return err
		}
		if _, found := channels.Channels["new-go"]; !found {
			return fmt.Errorf("new-go is not among %v", channels.Channels)
		}
		for name := range channels.Channels {
			if strings.HasPrefix(name, "#") {
				return fmt.Errorf("%s is listed", name)
			}
		}
		return nil
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
		if err := fromURL.Trigger("new-go", "from-url", "u"); err != nil {
			return err
		}
		if err := fromEnvironment.Trigger("new-go", "from-env", "e"); err != nil {
			return err
		}
		return harness.First(ann.AwaitText("from-url", "new-go", "u"), ann.AwaitText("from-env", "new-go", "e"))
	})

	check.That("refusals arrive as the status and the server's text", func() error {
		bad := pusher.Client{AppID: target.App.ID, Key: target.App.Key, Secret: "wrong", Host: target.Host}
		raised := pusher.Client{AppID: target.App.ID, Key: target.App.Key, Secret: target.App.Secret, Host: target.Host, OverrideMaxMessagePayloadKB: 64}
		return harness.First(
			refused(bad.Trigger("new-go", "refused", "x"), "Status Code: 401 - ", "Invalid signature"),
			refused(raised.Trigger("new-go", "refused", strings.Repeat("x", 10_241)), "Status Code: 413 - ", "10240 bytes"),
			refused(client.Trigger("new-go", "pusher:refused", "x"), "Status Code: 400 - ", "reserved"),
		)
	})

	webhooks(check, target)
	check.Exit()
}

func refused(err error, prefix, text string) error {
	if err == nil {
		return fmt.Errorf("the request was accepted, expected %q", prefix)
	}
	if !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), text) {
		return fmt.Errorf("the error is %q, expected %q with %q", err, prefix, text)
	}
	return nil
}
