/*
 * A stand-in for a Mule runtime with one app, as far as its key store goes: deployed once, it reads the key store once, and again
 * only when it is deployed again. As Mule 4 has it, that happens when the time of the app's descriptor changes, after a deployment
 * that failed too; the anchor file is written by each deployment that succeeds, and its time means nothing. What fails to be
 * deployed does not listen. Unlike Mule's, its balancer is told before the port is closed.
 */
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Key;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.Properties;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;

class AppServer {
	static final int POLL = 50; /* ms; Mule looks every 5 s */

	final Path descriptor, anchor, properties;
	final String name;
	volatile boolean ready, closing;
	Thread listener;
	ExecutorService workers;

	/* APPS NAME READY-PORT */
	public static void main(String[] args) throws Exception {
		AppServer server = new AppServer(Path.of(args[0]), args[1]);

		server.answerChecks(Integer.parseInt(args[2]));
		server.run();
	}

	AppServer(Path apps, String name) {
		this.name = name;
		descriptor = apps.resolve(name).resolve("META-INF/mule-artifact/mule-artifact.json");
		properties = apps.resolve(name).resolve("app.properties");
		anchor = apps.resolve(name + "-anchor.txt");
	}

	void run() throws Exception {
		long seen = descriptor.toFile().lastModified();

		for (deploy(); true; Thread.sleep(POLL)) {
			long now = descriptor.toFile().lastModified();

			if (now != seen) {
				seen = now;
				undeploy();
				deploy();
			}
		}
	}

	static void say(String text) {
		System.out.println(System.currentTimeMillis() + " " + text);
	}

	void deploy() throws Exception {
		Properties app = new Properties();

		try (InputStream in = Files.newInputStream(properties)) {
			app.load(in);
		}
		Thread.sleep(Integer.parseInt(app.getProperty("startup", "300")));
		try {
			KeyStore store = load(app);
			String serial = ((X509Certificate) store.getCertificate(app.getProperty("alias"))).getSerialNumber().toString(16);

			listen(Integer.parseInt(app.getProperty("port")), context(store, app), serial);
			Files.writeString(anchor, "deployed\n");
			ready = true;
			say("deployed with " + serial);
		} catch (Exception failure) {
			say("deployment failed: " + failure);
		}
	}

	static char[] password(Properties app) throws IOException {
		return Files.readString(Path.of(app.getProperty("passwordFile"))).strip().toCharArray();
	}

	/* What is in the store besides the alias that is named is not used, whatever it is. */
	static KeyStore load(Properties app) throws Exception {
		KeyStore all = KeyStore.getInstance("PKCS12"), one = KeyStore.getInstance("PKCS12");
		String alias = app.getProperty("alias");

		try (InputStream in = new FileInputStream(app.getProperty("keystore"))) {
			all.load(in, password(app));
		}
		Key key = all.getKey(alias, password(app));
		if (key == null)
			throw new IllegalArgumentException("no key under " + alias);
		one.load(null, null);
		one.setKeyEntry(alias, key, password(app), all.getCertificateChain(alias));
		return one;
	}

	static SSLContext context(KeyStore store, Properties app) throws Exception {
		KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
		SSLContext context = SSLContext.getInstance("TLS");

		keys.init(store, password(app));
		context.init(keys.getKeyManagers(), null, null);
		return context;
	}

	static ServerSocket bind(int port) throws IOException {
		ServerSocket socket = new ServerSocket();

		socket.setReuseAddress(true);
		socket.bind(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port), 200);
		return socket;
	}

	void listen(int port, SSLContext context, String serial) throws IOException {
		ServerSocket socket = bind(port);

		socket.setSoTimeout(POLL);
		closing = false;
		workers = Executors.newCachedThreadPool();
		listener = new Thread(() -> accept(socket, context, serial));
		listener.start();
	}

	void accept(ServerSocket socket, SSLContext context, String serial) {
		try (socket) {
			while (true) {
				try {
					Socket plain = socket.accept();

					workers.execute(() -> serve(plain, context, serial));
				} catch (SocketTimeoutException nobody) {
					if (closing)
						return;
				}
			}
		} catch (IOException failure) {
			say("listener: " + failure);
		}
	}

	/* One request, one answer; nobody's fault here ends the app. */
	void serve(Socket plain, SSLContext context, String serial) {
		try (plain; SSLSocket tls = (SSLSocket) context.getSocketFactory().createSocket(plain, null, plain.getPort(), true)) {
			tls.setUseClientMode(false);
			plain.setSoTimeout(5000);
			byte[] head = new byte[4096];
			int got = 0;

			while (!new String(head, 0, got, StandardCharsets.ISO_8859_1).contains("\r\n\r\n")) {
				int more = got < head.length ? tls.getInputStream().read(head, got, head.length - got) : -1;

				if (more < 0)
					return;
				got += more;
			}
			answer(tls, "200 OK", name + " " + serial + "\n");
		} catch (IOException gone) {
			/* a look from outside ends after its handshake */
		}
	}

	static void answer(Socket socket, String status, String body) throws IOException {
		String text = "HTTP/1.1 " + status + "\r\nContent-Length: " + body.length() + "\r\nConnection: close\r\n\r\n" + body;

		socket.getOutputStream().write(text.getBytes(StandardCharsets.ISO_8859_1));
		socket.getOutputStream().flush();
	}

	/* For the balancer, which is told before the port is closed: what is in its queue at that moment would be lost. */
	void answerChecks(int port) throws IOException {
		ServerSocket socket = bind(port);
		Thread checks = new Thread(() -> {
			while (true) {
				try (Socket check = socket.accept()) {
					check.setSoTimeout(1000);
					check.getInputStream().read(new byte[4096]);
					answer(check, ready ? "200 OK" : "503 Service Unavailable", "");
				} catch (IOException gone) {
					/* the next one */
				}
			}
		});

		checks.setDaemon(true);
		checks.start();
	}

	void undeploy() throws Exception {
		ready = false;
		say("undeployed");
		if (listener == null)
			return;
		Thread.sleep(250);
		closing = true;
		listener.join();
		listener = null;
		workers.shutdown();
		workers.awaitTermination(5, TimeUnit.SECONDS);
	}
}
