import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericArray;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/**
 * Reads features as Avro, with the JDK's HTTP client and Apache Avro and nothing else.
 *
 * <p>The answer is an envelope whose rows are the stored records, byte for byte. Its own schema and
 * that of every record are fetched once: a fingerprint always names the same schema.
 *
 * <pre>java -cp "jars/*" ReadAvro.java http://127.0.0.1:6566 '{"reads":[...]}'</pre>
 *
 * Prints a line a record, {@code group TAB row TAB event time in ms TAB record}, then a line for
 * everything that is not OK: {@code group TAB row TAB status TAB fields}.
 */
public final class ReadAvro {
  private static final String AVRO = "application/vnd.headrace.avro";

  private final URI gateway;
  private final HttpClient http = HttpClient.newHttpClient();
  private final Map<String, GenericDatumReader<GenericRecord>> readers = new HashMap<>();
  private BinaryDecoder decoder;

  private ReadAvro(URI gateway) {
    this.gateway = gateway;
  }

  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 2) {
      System.err.println("usage: ReadAvro GATEWAY BODY");
      System.exit(64);
    }
    try {
      new ReadAvro(URI.create(arguments[0])).print(arguments[1]);
    } catch (IOException failure) {
      System.err.println(failure.getMessage());
      System.exit(1);
    }
  }

  private void print(String body) throws IOException, InterruptedException {
    HttpRequest request =
        HttpRequest.newBuilder(gateway.resolve("/v1/read"))
            .header("content-type", "application/json")
            .header("accept", AVRO)
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    GenericRecord answer = decode(reader("read-response"), send(request));
    for (GenericRecord result : records(answer, "results")) {
      printResult(result);
    }
  }

  private void printResult(GenericRecord result) throws IOException, InterruptedException {
    List<?> fingerprints = (List<?>) result.get("schemas");
    int number = 0;
    for (Object row : (List<?>) result.get("rows")) {
      // A row is null, one record, or for a History a list of them, newest first.
      if (row instanceof GenericRecord stored) {
        printRecord(result, number, stored, fingerprints);
      } else if (row instanceof GenericArray<?> events) {
        for (Object event : events) {
          printRecord(result, number, (GenericRecord) event, fingerprints);
        }
      }
      number++;
    }
    for (GenericRecord status : records(result, "statuses")) {
      line(result.get("feature_group"), status.get("row"), status.get("status"), status.get("fields"));
    }
  }

  private void printRecord(
      GenericRecord result, int number, GenericRecord stored, List<?> fingerprints)
      throws IOException, InterruptedException {
    String fingerprint = fingerprints.get((Integer) stored.get("schema")).toString();
    ByteBuffer body = (ByteBuffer) stored.get("body");
    byte[] bytes = new byte[body.remaining()];
    body.get(bytes);
    GenericRecord features = decode(reader(fingerprint), bytes);
    line(result.get("feature_group"), number, stored.get("event_time_ms"), features);
  }

  /** The reader for a schema, which is fetched when it is first met. */
  private GenericDatumReader<GenericRecord> reader(String name)
      throws IOException, InterruptedException {
    GenericDatumReader<GenericRecord> known = readers.get(name);
    if (known == null) {
      URI place = gateway.resolve("/v1/schemas/" + name);
      byte[] text = send(HttpRequest.newBuilder(place).build());
      Schema schema = new Schema.Parser().parse(new String(text, StandardCharsets.UTF_8));
      known = new GenericDatumReader<>(schema);
      readers.put(name, known);
    }
    return known;
  }

  private GenericRecord decode(GenericDatumReader<GenericRecord> reader, byte[] bytes)
      throws IOException {
    decoder = DecoderFactory.get().binaryDecoder(bytes, decoder);
    return reader.read(null, decoder);
  }

  private byte[] send(HttpRequest request) throws IOException, InterruptedException {
    HttpResponse<byte[]> response = http.send(request, BodyHandlers.ofByteArray());
    if (response.statusCode() != 200) {
      // What was wrong, as RFC 9457 has it.
      throw new IOException(response.statusCode() + " " + new String(response.body(), StandardCharsets.UTF_8));
    }
    return response.body();
  }

  @SuppressWarnings("unchecked") // The envelope's schema says that these are records.
  private static List<GenericRecord> records(GenericRecord record, String field) {
    return (List<GenericRecord>) record.get(field);
  }

  private static void line(Object... parts) {
    String[] texts = new String[parts.length];
    for (int i = 0; i < parts.length; i++) {
      texts[i] = String.valueOf(parts[i]);
    }
    System.out.println(String.join("\t", texts));
  }
}
