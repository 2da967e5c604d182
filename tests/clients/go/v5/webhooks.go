package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pusher "github.com/pusher/pusher-http-go/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"dunlin.test/clients/harness"
)

// webhooks has what the server tells a receiver judged by the library and by that of Standard Webhooks.
func webhooks(check *harness.Check, target harness.Target) {
	target.App = target.Told
	client := pusher.Client{AppID: target.App.ID, Key: target.App.Key, Secret: target.App.Secret, Host: target.Host}
	channel := fmt.Sprintf("presence-hooks-%d", time.Now().UnixNano())
	appSecret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(target.App.Secret))
	ownSecrets := []string{target.Receiver.Secret, target.Receiver.PreviousSecret}
	var expected []pusher.WebhookEvent
	var ofApp, ofEndpoint []harness.Hook

	check.That("both endpoints are told when a channel is vacated", func() error {
		receiver, err := harness.Receive(target.Receiver)
		if err != nil {
			return err
		}
		if expected, err = happen(&client, target, channel); err != nil {
			return err
		}
		if ofApp, err = receiver.About("/app-secret", channel, len(expected)); err != nil {
			return err
		}
		ofEndpoint, err = receiver.About("/own-secret", channel, len(expected))
		return err
	})

	check.That("Webhook takes what is signed and reads its events", func() error {
		for _, hooks := range [][]harness.Hook{ofApp, ofEndpoint} {
			events := []pusher.WebhookEvent{}
			for _, hook := range hooks {
				webhook, err := client.Webhook(hook.Header, hook.Body)
				if err != nil {
					return err
				}
				if age := time.Since(time.UnixMilli(int64(webhook.TimeMs))).Abs(); age > time.Minute {
					return fmt.Errorf("time_ms is %s away", age)
				}
				events = append(events, webhook.Events...)
			}
			if err := harness.Equal("events", news(events, channel), expected); err != nil {
				return err
			}
		}
		return nil
	})

	check.That("Webhook refuses what is changed in body, signature or key", func() error {
		if len(ofApp) == 0 {
			return errors.New("there is no webhook")
		}
		stranger := client
		stranger.Secret = "another"
		for _, hook := range ofApp {
			for what, other := range map[string]harness.Hook{
				"body":      withChangedBody(hook, channel),
				"signature": hook.With("X-Pusher-Signature", changed(hook.Header.Get("X-Pusher-Signature"))),
				"key":       hook.With("X-Pusher-Key", changed(target.App.Key)),
			} {
				if _, err := client.Webhook(other.Header, other.Body); err == nil {
					return fmt.Errorf("another %s is accepted", what)
				}
			}
			if _, err := stranger.Webhook(hook.Header, hook.Body); err == nil {
				return errors.New("another secret is accepted")
			}
		}
		return nil
	})

	check.That("standardwebhooks verifies with the app's secret where an endpoint has none", func() error {
		return harness.First(verify(ofApp, appSecret), refuse("another secret", ofApp, ownSecrets[0]))
	})

	check.That("standardwebhooks verifies with the endpoint's secret and with the one before it", func() error {
		return harness.First(
			verify(ofEndpoint, ownSecrets[0]),
			verify(ofEndpoint, ownSecrets[1]),
			refuse("the app's secret", ofEndpoint, appSecret),
		)
	})

	check.That("standardwebhooks refuses what is changed", func() error {
		for what, change := range map[string]func(harness.Hook) harness.Hook{
			"body": func(hook harness.Hook) harness.Hook { return withChangedBody(hook, channel) },
			"id": func(hook harness.Hook) harness.Hook {
				return hook.With("Webhook-Id", changed(hook.Header.Get("Webhook-Id")))
			},
			"timestamp": func(hook harness.Hook) harness.Hook {
				return hook.With("Webhook-Timestamp", changed(hook.Header.Get("Webhook-Timestamp")))
			},
			"signature": withChangedSignatures,
		} {
			hooks := []harness.Hook{}
			for _, hook := range ofEndpoint {
				hooks = append(hooks, change(hook))
			}
			for _, secret := range ownSecrets {
				if err := refuse("another "+what, hooks, secret); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// happen makes two users come and go, one of whom sends something, and returns what a receiver has to be told, sorted.
func happen(client *pusher.Client, target harness.Target, channel string) ([]pusher.WebhookEvent, error) {
	members := []*harness.Subscriber{}
	for _, id := range []string{"10", "11"} {
		member, err := harness.Connect(target)
		if err != nil {
			return nil, err
		}
		defer member.Close()
		authorization, err := client.AuthorizePresenceChannel(member.Params(channel), pusher.MemberData{UserID: id})
		if err != nil {
			return nil, err
		}
		if _, err := member.Subscribe(channel, authorization); err != nil {
			return nil, err
		}
		members = append(members, member)
	}
	if err := members[0].SendOn(channel, "client-typing", map[string]int{"at": 3}); err != nil {
		return nil, err
	}
	if _, err := members[1].Await("client-typing", channel); err != nil {
		return nil, err
	}
	return []pusher.WebhookEvent{
		{Name: "channel_occupied", Channel: channel},
		{Name: "channel_vacated", Channel: channel},
		{Name: "client_event", Channel: channel, Event: "client-typing", Data: `{"at":3}`, SocketID: members[0].SocketID, UserID: "10"},
		{Name: "member_added", Channel: channel, UserID: "10"},
		{Name: "member_added", Channel: channel, UserID: "11"},
		{Name: "member_removed", Channel: channel, UserID: "10"},
		{Name: "member_removed", Channel: channel, UserID: "11"},
	}, nil
}

// news are the events of the channel, sorted, and without the counts, of which there are more or fewer.
func news(events []pusher.WebhookEvent, channel string) []pusher.WebhookEvent {
	events = slices.DeleteFunc(events, func(event pusher.WebhookEvent) bool {
		return event.Channel != channel || event.Name == "subscription_count"
	})
	slices.SortFunc(events, func(a, b pusher.WebhookEvent) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UserID, b.UserID))
	})
	return events
}

// verify complains unless there are hooks and all of them are signed with the secret.
func verify(hooks []harness.Hook, secret string) error {
	if len(hooks) == 0 {
		return errors.New("there is no webhook")
	}
	webhook, err := standardwebhooks.NewWebhook(secret)
	for _, hook := range hooks {
		if err == nil {
			err = webhook.Verify(hook.Body, hook.Header)
		}
	}
	return err
}

// refuse complains unless there are hooks and none of them is signed with the secret.
func refuse(what string, hooks []harness.Hook, secret string) error {
	if len(hooks) == 0 {
		return errors.New("there is no webhook")
	}
	for _, hook := range hooks {
		if err := verify([]harness.Hook{hook}, secret); !errors.Is(err, standardwebhooks.ErrNoMatchingSignature) {
			return fmt.Errorf("%s: the verdict is %v", what, err)
		}
	}
	return nil
}

// changed is the text with its last character changed.
func changed(text string) string {
	last := "0"
	if strings.HasSuffix(text, last) {
		last = "1"
	}
	return text[:len(text)-1] + last
}

// withChangedBody has another letter in the channel's name, so that the body is JSON as before.
func withChangedBody(hook harness.Hook, channel string) harness.Hook {
	hook.Body = bytes.Replace(hook.Body, []byte(channel), []byte(changed(channel)), 1)
	return hook
}

// withChangedSignatures has one wrong character in each signature, as any of them would do.
func withChangedSignatures(hook harness.Hook) harness.Hook {
	signatures := strings.Fields(hook.Header.Get("Webhook-Signature"))
	for i, signature := range signatures {
		text, padding, _ := strings.Cut(signature, "=")
		signatures[i] = changed(text) + "=" + padding
	}
	return hook.With("Webhook-Signature", strings.Join(signatures, " "))
}
