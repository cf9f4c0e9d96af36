// A conversation with a running server, by OkHttp, which is most of Android's. `matrix.py` runs it; python.py says how.

import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.WebSocket;
import okhttp3.WebSocketListener;
import okio.ByteString;

class OkHttp {
    /** What came: a message, or with no bytes the code of the end. */
    record Event(byte[] bytes, boolean text, int code) {}

    static class Inbox extends WebSocketListener {
        final LinkedBlockingQueue<Event> events = new LinkedBlockingQueue<>();

        @Override
        public void onMessage(WebSocket socket, String text) {
            events.add(new Event(text.getBytes(StandardCharsets.UTF_8), true, 0));
        }

        @Override
        public void onMessage(WebSocket socket, ByteString bytes) {
            events.add(new Event(bytes.toByteArray(), false, 0));
        }

        @Override
        public void onClosing(WebSocket socket, int code, String reason) {
            socket.close(1000, null);
        }

        @Override
        public void onClosed(WebSocket socket, int code, String reason) {
            events.add(new Event(null, false, code));
        }

        @Override
        public void onFailure(WebSocket socket, Throwable error, Response response) {
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
        OkHttpClient.Builder builder = new OkHttpClient.Builder().connectTimeout(30, TimeUnit.SECONDS);
        String authority = System.getenv("SSL_CERT_FILE");
        if (args[1].startsWith("wss:") && authority != null) trust(builder, authority);
        OkHttpClient client = builder.build();

        Inbox echoed = new Inbox();
        WebSocket echo = client.newWebSocket(to(args[1] + "/echo"), echoed);
        byte[] random = new byte[150_000];
        new Random().nextBytes(random);
        for (String sent : new String[] {"", "hello, 世界 🪭", "x".repeat(65_000), "größer".repeat(25_000)}) {
            echo.send(sent);
            same(echoed.next(), sent.getBytes(StandardCharsets.UTF_8), true);
        }
        for (byte[] sent : new byte[][] {{}, random}) {
            echo.send(ByteString.of(sent));
            same(echoed.next(), sent, false);
        }
        echo.close(1000, null);
        System.out.println("echoed " + echoed.next().code);

        Inbox inbox = new Inbox();
        client.newWebSocket(to(args[1] + "/ws/" + args[0]), inbox);
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

    private static Request to(String url) {
        return new Request.Builder().url(url).build();
    }

    private static void same(Event event, byte[] sent, boolean text) {
        if (event.bytes == null || event.text != text || !Arrays.equals(event.bytes, sent)) {
            throw new IllegalStateException(sent.length + " came back changed: " + event);
        }
    }

    private static void trust(OkHttpClient.Builder builder, String file) throws Exception {
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
        builder.sslSocketFactory(context.getSocketFactory(), (X509TrustManager) trust.getTrustManagers()[0]);
    }
}
