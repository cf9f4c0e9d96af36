// Java with Tomcat's embedded server: an annotated endpoint, sessions in a set, as Tomcat's chat example does it.
// Arguments: port, a folder to work in, and for TLS the files of certificate and key.

import jakarta.websocket.OnClose;
import jakarta.websocket.OnError;
import jakarta.websocket.OnMessage;
import jakarta.websocket.OnOpen;
import jakarta.websocket.Session;
import jakarta.websocket.server.ServerContainer;
import jakarta.websocket.server.ServerEndpoint;
import java.io.IOException;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.catalina.Context;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.net.SSLHostConfig;
import org.apache.tomcat.util.net.SSLHostConfigCertificate;
import org.apache.tomcat.websocket.server.WsSci;

public class Broadcast {
    @ServerEndpoint("/ws/study")
    public static class Endpoint {
        private static final Set<Session> SUBSCRIBERS = ConcurrentHashMap.newKeySet();

        @OnOpen
        public void opened(Session session) {
            SUBSCRIBERS.add(session);
        }

        @OnMessage
        public void message(String text) throws IOException {
            for (Session one : SUBSCRIBERS) {
                synchronized (one) {
                    one.getBasicRemote().sendText(text);
                }
            }
        }

        @OnClose
        public void closed(Session session) {
            SUBSCRIBERS.remove(session);
        }

        @OnError
        public void failed(Session session, Throwable why) {
            SUBSCRIBERS.remove(session);
        }
    }

    public static void main(String[] words) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(words[1]);
        Connector connector = new Connector("HTTP/1.1");
        connector.setPort(Integer.parseInt(words[0]));
        connector.setProperty("address", "127.0.0.1");
        // As many as the study opens; the default is 8,192.
        connector.setProperty("maxConnections", "19000");
        if (words.length > 3) {
            connector.setSecure(true);
            connector.setScheme("https");
            connector.setProperty("SSLEnabled", "true");
            SSLHostConfig host = new SSLHostConfig();
            SSLHostConfigCertificate files = new SSLHostConfigCertificate(host, SSLHostConfigCertificate.Type.EC);
            files.setCertificateFile(words[2]);
            files.setCertificateKeyFile(words[3]);
            host.addCertificate(files);
            connector.addSslHostConfig(host);
        }
        tomcat.setConnector(connector);
        Context context = tomcat.addContext("", words[1]);
        Tomcat.addServlet(context, "none", new org.apache.catalina.servlets.DefaultServlet());
        context.addServletMappingDecoded("/", "none");
        context.addServletContainerInitializer(new WsSci(), Set.of(Endpoint.class));
        tomcat.start();
        tomcat.getServer().await();
    }
}
