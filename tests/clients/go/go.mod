module dunlin.test/clients

go 1.22

require (
	github.com/gorilla/websocket v1.5.3
	github.com/pusher/pusher-http-go v1.3.0
	github.com/pusher/pusher-http-go/v5 v5.1.1
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
	golang.org/x/crypto v0.0.0-20200709230013-948cd5f35899
)

require (
	github.com/stretchr/testify v1.12.1 // indirect
	golang.org/x/sys v0.0.0-20190412213103-97732733099d // indirect
)
