// Go with gorilla/websocket: a hub, and for each connection a goroutine that reads and one that writes, as in the
// package's chat example. Arguments: port, and for TLS the files of certificate and key.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gorilla/websocket"
)

// The buffers are the chat example's.
var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}

type client struct {
	conn *websocket.Conn
	send chan []byte
}

var (
	broadcast  = make(chan []byte)
	register   = make(chan *client)
	unregister = make(chan *client)
)

func hub() {
	clients := make(map[*client]bool)
	for {
		select {
		case one := <-register:
			clients[one] = true
		case one := <-unregister:
			if clients[one] {
				delete(clients, one)
				close(one.send)
			}
		case message := <-broadcast:
			for one := range clients {
				select {
				case one.send <- message:
				default:
					close(one.send)
					delete(clients, one)
				}
			}
		}
	}
}

func (one *client) read() {
	defer func() {
		unregister <- one
		one.conn.Close()
	}()
	for {
		_, message, err := one.conn.ReadMessage()
		if err != nil {
			return
		}
		broadcast <- message
	}
}

func (one *client) write() {
	defer one.conn.Close()
	for message := range one.send {
		if one.conn.WriteMessage(websocket.TextMessage, message) != nil {
			return
		}
	}
}

func serve(answer http.ResponseWriter, request *http.Request) {
	conn, err := upgrader.Upgrade(answer, request, nil)
	if err != nil {
		return
	}
	one := &client{conn: conn, send: make(chan []byte, 256)}
	register <- one
	go one.write()
	go one.read()
}

func main() {
	go hub()
	http.HandleFunc("/", serve)
	address := "127.0.0.1:" + os.Args[1]
	if len(os.Args) > 3 {
		log.Fatal(http.ListenAndServeTLS(address, os.Args[2], os.Args[3], nil))
	}
	log.Fatal(http.ListenAndServe(address, nil))
}
