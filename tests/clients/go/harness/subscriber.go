package harness

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/crypto/nacl/secretbox"
)

const deadline = 10 * time.Second

// Frame is one message from the server; Data is its text, not parsed.
type Frame struct {
	Event   string
	Channel string
	Data    json.RawMessage
}

// Text is the data of a frame whose data is a JSON string, as it is in every event but `pusher:error`.
func (f Frame) Text() (string, error) {
	var text string
	err := json.Unmarshal(f.Data, &text)
	return text, err
}

// Subscriber is one connection that remembers every frame it received.
type Subscriber struct {
	SocketID string
	conn     *websocket.Conn
	incoming chan Frame
	seen     []Frame
}

// Connect opens a connection with protocol 7 and waits for its socket id.
func Connect(target Target) (*Subscriber, error) {
	address := url.URL{Scheme: "ws", Host: target.Host, Path: "/app/" + target.App.Key, RawQuery: "protocol=7&client=go&version=1.0"}
	conn, _, err := websocket.DefaultDialer.Dial(address.String(), nil)
	if err != nil {
		return nil, err
	}
	s := &Subscriber{conn: conn, incoming: make(chan Frame, 1024)}
	go s.read()
	established, err := s.Await("pusher:connection_established", "")
	if err != nil {
		return nil, err
	}
	text, err := established.Text()
	if err != nil {
		return nil, err
	}
	var handshake struct {
		SocketID string `json:"socket_id"`
	}
	err = json.Unmarshal([]byte(text), &handshake)
	s.SocketID = handshake.SocketID
	return s, err
}

func (s *Subscriber) read() {
	defer close(s.incoming)
	for {
		var frame Frame
		if s.conn.ReadJSON(&frame) != nil {
			return
		}
		s.incoming <- frame
	}
}

// Send sends one protocol message.
func (s *Subscriber) Send(event string, data any) error {
	return s.conn.WriteJSON(map[string]any{"event": event, "data": data})
}

// SendOn sends a client event on a channel.
func (s *Subscriber) SendOn(channel, event string, data any) error {
	return s.conn.WriteJSON(map[string]any{"event": event, "channel": channel, "data": data})
}

// Close leaves all channels.
func (s *Subscriber) Close() error {
	return s.conn.Close()
}

// Subscribe subscribes with what an authorization endpoint answered (nil for a public channel) and waits for success.
func (s *Subscriber) Subscribe(channel string, authorization []byte) (Frame, error) {
	data := map[string]string{}
	if authorization != nil {
		if err := json.Unmarshal(authorization, &data); err != nil {
			return Frame{}, err
		}
		delete(data, "shared_secret")
	}
	data["channel"] = channel
	if err := s.Send("pusher:subscribe", data); err != nil {
		return Frame{}, err
	}
	return s.Await("pusher_internal:subscription_succeeded", channel)
}

// SignIn signs in with what a user authentication endpoint answered and waits for success.
func (s *Subscriber) SignIn(authentication []byte) error {
	if err := s.Send("pusher:signin", json.RawMessage(authentication)); err != nil {
		return err
	}
	_, err := s.Await("pusher:signin_success", "")
	return err
}

// Params is the form that a client posts to an authorization endpoint.
func (s *Subscriber) Params(channel string) []byte {
	return []byte(url.Values{"socket_id": {s.SocketID}, "channel_name": {channel}}.Encode())
}

// Await returns the first frame with this event and channel, also one that came before.
func (s *Subscriber) Await(event, channel string) (Frame, error) {
	for _, frame := range s.seen {
		if frame.Event == event && frame.Channel == channel {
			return frame, nil
		}
	}
	timeout := time.After(deadline)
	for {
		select {
		case frame, open := <-s.incoming:
			if !open {
				return Frame{}, fmt.Errorf("the connection closed before %s on %q", event, channel)
			}
			s.seen = append(s.seen, frame)
			if frame.Event == event && frame.Channel == channel {
				return frame, nil
			}
		case <-timeout:
			return Frame{}, fmt.Errorf("waited %s in vain for %s on %q; saw %s", deadline, event, channel, JSON(s.seen))
		}
	}
}

// AwaitText waits for an event and complains unless its data is exactly this text.
func (s *Subscriber) AwaitText(event, channel, expected string) error {
	frame, err := s.Await(event, channel)
	if err != nil {
		return err
	}
	text, err := frame.Text()
	return First(err, Equal("data of "+event, text, expected))
}

// Count is how many frames with this event and channel were read so far.
func (s *Subscriber) Count(event, channel string) int {
	n := 0
	for _, frame := range s.seen {
		if frame.Event == event && frame.Channel == channel {
			n++
		}
	}
	return n
}

// Texts are the data of all frames read so far with this event and channel, in order.
func (s *Subscriber) Texts(event, channel string) []string {
	texts := []string{}
	for _, frame := range s.seen {
		if frame.Event == event && frame.Channel == channel {
			text, err := frame.Text()
			if err != nil {
				text = string(frame.Data)
			}
			texts = append(texts, text)
		}
	}
	return texts
}

// Open decrypts the data of an event on an encrypted channel.
func Open(channel, masterKey, data string) (string, error) {
	var sealed struct{ Nonce, Ciphertext string }
	if err := json.Unmarshal([]byte(data), &sealed); err != nil {
		return "", err
	}
	nonceBytes, err := base64.StdEncoding.DecodeString(sealed.Nonce)
	if err != nil {
		return "", err
	}
	box, err := base64.StdEncoding.DecodeString(sealed.Ciphertext)
	if err != nil {
		return "", err
	}
	var nonce [24]byte
	copy(nonce[:], nonceBytes)
	key := sha256.Sum256([]byte(channel + masterKey))
	plain, ok := secretbox.Open(nil, box, &nonce, &key)
	if !ok {
		return "", errors.New("the ciphertext does not open")
	}
	return string(plain), nil
}
