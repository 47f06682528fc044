/* What a Java program does with a key store: opens it, takes a key by its alias, signs, and checks with the certificate. */
import java.io.FileInputStream;
import java.io.InputStream;
import java.security.Key;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.Collections;

class LoadStore {
	/* TYPE FILE STORE-PASSWORD [ALIAS KEY-PASSWORD] */
	public static void main(String[] args) throws Exception {
		KeyStore store = KeyStore.getInstance(args[0]);

		try (InputStream in = new FileInputStream(args[1])) {
			store.load(in, args[2].toCharArray());
		}
		System.out.println("aliases " + Collections.list(store.aliases()));
		for (String alias : Collections.list(store.aliases()))
			if (store.isCertificateEntry(alias))
				System.out.println("trusted " + alias + " " + serial(store.getCertificate(alias)));
		if (args.length > 3)
			use(store, args[3], args[4]);
	}

	static String serial(Certificate certificate) {
		return ((X509Certificate) certificate).getSerialNumber().toString(16);
	}

	static void use(KeyStore store, String alias, String password) throws Exception {
		Key key = store.getKey(alias, password.toCharArray());

		if (key == null)
			throw new IllegalArgumentException("no key under " + alias);
		Certificate[] chain = store.getCertificateChain(alias);
		String algorithm = key.getAlgorithm().equals("EC") ? "SHA256withECDSA"
		                   : key.getAlgorithm().equals("RSA") ? "SHA256withRSA" : "Ed25519";
		Signature signature = Signature.getInstance(algorithm);
		byte[] text = "keyturn".getBytes("UTF-8");

		signature.initSign((PrivateKey) key);
		signature.update(text);
		byte[] signed = signature.sign();
		signature.initVerify(chain[0]);
		signature.update(text);
		if (!signature.verify(signed))
			throw new IllegalStateException("key and certificate don't belong together");
		for (int i = 1; i < chain.length; i++)
			chain[i - 1].verify(chain[i].getPublicKey());
		System.out.println("key " + algorithm + " " + serial(chain[0]) + " chain " + chain.length + " made " +
		                   store.getCreationDate(alias).getTime());
	}
}
