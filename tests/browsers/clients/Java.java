// A conversation with a running server, by the WebSocket of java.net.http. `matrix.py` runs it; python.py says how.

import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

class Java {
    /** What came: a whole message, or with no bytes the code of the end. */
    record Event(byte[] bytes, boolean text, int code) {}

    /** Joins the parts of messages and queues what comes, so that nothing is missed between two waits. */
    static class Inbox implements WebSocket.Listener {
        final LinkedBlockingQueue<Event> events = new LinkedBlockingQueue<>();
        private final StringBuilder text = new StringBuilder();
        private byte[] binary = {};

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            text.append(data);
            if (last) {
                events.add(new Event(text.toString().getBytes(StandardCharsets.UTF_8), true, 0));
                text.setLength(0);
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
            int had = binary.length;
            int come = data.remaining();
            binary = Arrays.copyOf(binary, had + come);
            data.get(binary, had, come);
            if (last) {
                events.add(new Event(binary, false, 0));
                binary = new byte[0];
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            events.add(new Event(null, false, code));
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            error.printStackTrace();
            events.add(new Event(null, false, 1006));
        }

        Event next() throws InterruptedException {
            Event event = events.poll(30, TimeUnit.SECONDS);
            if (event == null) throw new IllegalStateException("nothing came within 30 s");
            return event;
        }
    }

    public static void main(String[] args) throws Exception {
        HttpClient.Builder builder = HttpClient.newBuilder();
        String authority = System.getenv("SSL_CERT_FILE");
        if (authority != null) builder.sslContext(trusting(authority));
        HttpClient client = builder.build();
        String library = args[0];
        String url = args[1];

        Inbox echoed = new Inbox();
        WebSocket echo = client.newWebSocketBuilder().buildAsync(URI.create(url + "/echo"), echoed).join();
        byte[] random = new byte[150_000];
        new Random().nextBytes(random);
        for (String sent : new String[] {"", "hello, 世界 🪭", "x".repeat(65_000), "größer".repeat(25_000)}) {
            echo.sendText(sent, true).join();
            same(echoed.next(), sent.getBytes(StandardCharsets.UTF_8), true);
        }
        for (byte[] sent : new byte[][] {{}, random}) {
            echo.sendBinary(ByteBuffer.wrap(sent), true).join();
            same(echoed.next(), sent, false);
        }
        echo.sendClose(WebSocket.NORMAL_CLOSURE, "").join();
        System.out.println("echoed " + echoed.next().code);

        Inbox inbox = new Inbox();
        client.newWebSocketBuilder().buildAsync(URI.create(url + "/ws/" + library), inbox).join();
        System.out.println("subscribed");
        Event event;
        while ((event = inbox.next()).bytes != null) {
            byte[] digest = MessageDigest.getInstance("SHA-1").digest(event.bytes);
            System.out.println("got " + event.bytes.length + " " + HexFormat.of().formatHex(digest));
        }
        System.out.println("closed " + event.code);
        // Threads of its own would keep the process for a while.
        System.exit(0);
    }

    private static void same(Event event, byte[] sent, boolean text) {
        if (event.bytes == null || event.text != text || !Arrays.equals(event.bytes, sent)) {
            throw new IllegalStateException(sent.length + " came back changed: " + event);
        }
    }

    private static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = new FileInputStream(file)) {
            for (Certificate one : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                store.setCertificateEntry(Integer.toString(store.size()), one);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
