// A conversation with a running server, by gorilla/websocket on Go's own TLS. `matrix.py` runs it; python.py says how.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const wait = 30 * time.Second

func open(dialer *websocket.Dialer, url string) *websocket.Conn {
	socket, _, err := dialer.Dial(url, nil)
	if err != nil {
		log.Fatal(err)
	}
	return socket
}

// The next message, or the code of the end.
func next(socket *websocket.Conn) (int, []byte, int) {
	if err := socket.SetReadDeadline(time.Now().Add(wait)); err != nil {
		log.Fatal(err)
	}
	kind, data, err := socket.ReadMessage()
	var end *websocket.CloseError
	if errors.As(err, &end) {
		return 0, nil, end.Code
	}
	if err != nil {
		log.Fatal(err)
	}
	return kind, data, 0
}

func main() {
	library, url := os.Args[1], os.Args[2]
	// With a cache it resumes its session the second time.
	dialer := &websocket.Dialer{
		HandshakeTimeout:  wait,
		EnableCompression: true,
		TLSClientConfig:   &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(4)},
	}
	echo := open(dialer, url+"/echo")
	random := make([]byte, 150_000)
	if _, err := rand.Read(random); err != nil {
		log.Fatal(err)
	}
	rows := strings.Repeat(`{"id":1,"name":"row 1","open":true}`, 60)
	send := func(kind int, sent []byte) {
		if err := echo.WriteMessage(kind, sent); err != nil {
			log.Fatal(err)
		}
		if back, data, code := next(echo); back != kind || !bytes.Equal(data, sent) {
			log.Fatalf("%d came back as %d of kind %d, code %d", len(sent), len(data), back, code)
		}
	}
	for _, text := range []string{"", "hello, 世界 🪭", "0 " + rows, "1 " + rows, "2 " + rows, strings.Repeat("x", 65_000)} {
		send(websocket.TextMessage, []byte(text))
	}
	for _, data := range [][]byte{{}, random} {
		send(websocket.BinaryMessage, data)
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := echo.WriteControl(websocket.CloseMessage, bye, time.Now().Add(wait)); err != nil {
		log.Fatal(err)
	}
	_, _, code := next(echo)
	fmt.Println("echoed", code)
	if err := echo.Close(); err != nil {
		log.Fatal(err)
	}

	socket := open(dialer, url+"/ws/"+library)
	if secure, ok := socket.UnderlyingConn().(*tls.Conn); ok && !secure.ConnectionState().DidResume {
		log.Fatal("the session was not resumed")
	}
	fmt.Println("subscribed")
	for {
		kind, data, code := next(socket)
		if kind == 0 {
			fmt.Println("closed", code)
			return
		}
		fmt.Printf("got %d %x\n", len(data), sha1.Sum(data))
	}
}
