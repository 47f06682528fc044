/*
 * Tokens from keyturn's local socket, for the Java module of a Mule app; nothing but JDK 17. Who may ask is known by the user that the
 * runtime runs as: a Consumer's spec.socket names it. To try it: java Tokens.java SOCKET NAMESPACE SECRET [REFUSED-TOKEN]
 */
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;

public final class Tokens {
	private static final int LARGEST = 1 << 20, TRIES = 15, PAUSE = 200; /* three seconds in all */

	private Tokens() {
	}

	/* The token that is in force now. Ask for each call: it is not kept here. */
	public static String get(String socket, String namespace, String secret) throws IOException {
		return body(ask(socket, "GET", "/v1/token/" + namespace + "/" + secret));
	}

	/* A call was answered 401 with this token: says so, and returns the one to go on with; the same if there is no other yet. */
	public static String refused(String socket, String namespace, String secret, String token)
			throws IOException, GeneralSecurityException, InterruptedException {
		byte[] sum = MessageDigest.getInstance("SHA-256").digest(token.getBytes(StandardCharsets.ISO_8859_1));

		ask(socket, "POST", "/v1/token/" + namespace + "/" + secret + "/invalidate?sha256=" + HexFormat.of().formatHex(sum));
		for (int i = 0; i < TRIES; i++) {
			String now = get(socket, namespace, secret);

			if (!now.equals(token))
				return now;
			Thread.sleep(PAUSE);
		}
		return token;
	}

	/* One request, one connection: the answer ends where the connection does. */
	private static String ask(String socket, String method, String path) throws IOException {
		String request = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nConnection: close\r\n\r\n";
		ByteBuffer answer = ByteBuffer.allocate(LARGEST);

		try (SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX)) {
			channel.connect(UnixDomainSocketAddress.of(socket));
			for (ByteBuffer out = ByteBuffer.wrap(request.getBytes(StandardCharsets.ISO_8859_1)); out.hasRemaining();)
				channel.write(out);
			while (answer.hasRemaining() && channel.read(answer) >= 0)
				continue;
		}
		return new String(answer.array(), 0, answer.position(), StandardCharsets.ISO_8859_1);
	}

	private static String body(String answer) throws IOException {
		int end = answer.indexOf("\r\n\r\n");

		if (end < 0 || !answer.startsWith("HTTP/1.1 200 "))
			throw new IOException("no token: " + answer.substring(0, Math.max(0, answer.indexOf('\r'))));
		return answer.substring(end + 4);
	}

	public static void main(String[] args) throws Exception {
		System.out.println(args.length > 3 ? refused(args[0], args[1], args[2], args[3]) : get(args[0], args[1], args[2]));
	}
}
