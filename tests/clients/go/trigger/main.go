// trigger CHANNEL EVENT DATA triggers one event with pusher-http-go 5.1.1 and nothing else.
package main

import (
	"fmt"
	"os"

	pusher "github.com/pusher/pusher-http-go/v5"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: trigger CHANNEL EVENT DATA")
		os.Exit(2)
	}
	client := pusher.Client{
		AppID:  os.Getenv("DUNLIN_TEST_APP_ID"),
		Key:    os.Getenv("DUNLIN_TEST_APP_KEY"),
		Secret: os.Getenv("DUNLIN_TEST_APP_SECRET"),
		Host:   os.Getenv("DUNLIN_TEST_HOST") + ":" + os.Getenv("DUNLIN_TEST_PORT"),
	}
	if err := client.Trigger(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
