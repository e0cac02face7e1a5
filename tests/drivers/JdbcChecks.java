import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/**
 * The PostgreSQL JDBC driver through the pooler: statements that turn into server-side ones, batches, cursors by fetch size, COPY,
 * time limits and cancel, many threads. Started by run.sh, with its environment; prints a line "ok NAME" or "FAIL NAME: reason"
 * per check.
 */
public final class JdbcChecks {
    private static final String MODE = System.getenv("PGWEIR_MODE");
    private static final String URL = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGWEIR_PORT") + "/check";
    /** The authority that signed the pooler's certificate; empty where there is no TLS. */
    private static final String TLS_CA = System.getenv("PGWEIR_TLS_CA");
    private static final String[] EVERY_MODE = {"session", "transaction", "statement"};
    private static final String[] WITH_TRANSACTIONS = {"session", "transaction"};
    private static final String QUERY_CANCELED = "57014";
    private static final String DIVISION_BY_ZERO = "22012";
    private static final int CHECK_SECONDS_MAX = 60;

    private static int failed = 0;

    private interface Check {
        void run() throws Exception;
    }

    private static Connection connect(String... settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "weir");
        properties.setProperty("password", "weir");
        properties.setProperty("connectTimeout", "20");
        properties.setProperty("socketTimeout", "40");
        if (!TLS_CA.isEmpty()) {
            properties.setProperty("sslmode", "verify-full");
            properties.setProperty("sslrootcert", TLS_CA);
        }
        for (int i = 0; i < settings.length; i += 2) {
            properties.setProperty(settings[i], settings[i + 1]);
        }
        return DriverManager.getConnection(URL, properties);
    }

    private static void expect(Object got, Object wanted, String what) {
        if (!wanted.equals(got)) {
            throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
        }
    }

    private static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    private static long number(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            return number(statement, values);
        }
    }

    private static long number(PreparedStatement statement, Object... values) throws SQLException {
        for (int i = 0; i < values.length; i++) {
            statement.setObject(i + 1, values[i]);
        }
        try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            return rows.getLong(1);
        }
    }

    private static void expectState(String state, Check action) throws Exception {
        try {
            action.run();
        } catch (SQLException error) {
            expect(error.getSQLState(), state, "SQLSTATE of " + error.getMessage());
            return;
        }
        throw new AssertionError("no error, wanted " + state);
    }

    /** A table that exists for one check. */
    private static void withTable(String name, String columns, Check body) throws Exception {
        try (Connection connection = connect()) {
            execute(connection, "DROP TABLE IF EXISTS " + name);
            execute(connection, "CREATE TABLE " + name + " (" + columns + ")");
            try {
                body.run();
            } finally {
                execute(connection, "DROP TABLE " + name);
            }
        }
    }

    private static void valuesComeBackAsSent() throws Exception {
        for (String threshold : new String[] {"1", "5", "0"}) {
            try (Connection connection = connect("prepareThreshold", threshold, "binaryTransfer", "true")) {
                for (int turn = 0; turn < 8; turn++) {
                    checkValues(connection, turn);
                }
            }
        }
    }

    private static void checkValues(Connection connection, int turn) throws SQLException {
        String sql = "SELECT ?::int8, ?::text, ?::bytea, ?::numeric, ?::float8, ?::timestamp, ?::int[], ?::text";
        byte[] bytes = {0, 1, (byte) 0xff, 13, 10};
        Timestamp time = Timestamp.valueOf("2026-01-02 03:04:05.678901");
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setLong(1, turn);
            statement.setString(2, "naïve 漢字 " + turn);
            statement.setBytes(3, bytes);
            statement.setBigDecimal(4, new BigDecimal("12345678901234567890.123456789"));
            statement.setDouble(5, 1.1);
            statement.setTimestamp(6, time);
            statement.setArray(7, connection.createArrayOf("int4", new Integer[] {1, null, turn}));
            statement.setString(8, null);
            try (ResultSet row = statement.executeQuery()) {
                row.next();
                expect(row.getLong(1), (long) turn, "int8");
                expect(row.getString(2), "naïve 漢字 " + turn, "text");
                expect(Arrays.toString(row.getBytes(3)), Arrays.toString(bytes), "bytea");
                expect(row.getBigDecimal(4), new BigDecimal("12345678901234567890.123456789"), "numeric");
                expect(row.getDouble(5), 1.1, "float8");
                expect(row.getTimestamp(6), time, "timestamp");
                Array array = row.getArray(7);
                expect(Arrays.toString((Object[]) array.getArray()), "[1, null, " + turn + "]", "int[]");
                expect(String.valueOf(row.getString(8)), "null", "null");
            }
        }
    }

    private static void preparedStatementsOfManyClients() throws Exception {
        List<Connection> connections = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            connections.add(connect("prepareThreshold", "1"));
        }
        List<PreparedStatement> statements = new ArrayList<>();
        for (int i = 0; i < connections.size(); i++) {
            // The driver gives each the same name, S_1.
            statements.add(connections.get(i).prepareStatement("SELECT ?::int * 100 + " + i));
        }
        for (int turn = 0; turn < 30 && !MODE.equals("session") || turn < 5; turn++) {
            for (int i = 0; i < connections.size(); i++) {
                expect(number(statements.get(i), turn), turn * 100L + i, "client " + i);
            }
        }
        for (Connection connection : connections) {
            connection.close();
        }
    }

    private static void moreStatementsThanThePoolerKeeps() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1", "preparedStatementCacheQueries", "1000")) {
            for (int turn = 0; turn < 2; turn++) {
                for (int i = 0; i < 300; i++) {
                    expect(number(connection, "SELECT ?::int + " + i, turn), (long) turn + i, "statement " + i);
                }
            }
        }
    }

    private static void smallStatementCacheEvicts() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1", "preparedStatementCacheQueries", "4")) {
            for (int turn = 0; turn < 5; turn++) {
                for (int i = 0; i < 10; i++) {
                    expect(number(connection, "SELECT ?::int + " + i, turn), (long) turn + i, "statement " + i);
                }
            }
        }
    }

    private static void everyQueryMode() throws Exception {
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            try (Connection connection = connect("preferQueryMode", mode, "prepareThreshold", "1")) {
                for (int turn = 0; turn < 5; turn++) {
                    expect(number(connection, "SELECT ?::int + 1", turn), turn + 1L, mode);
                    execute(connection, "SELECT 1; SELECT 2");
                }
            }
        }
    }

    private static void anErrorLeavesTheConnectionUsable() throws Exception {
        for (String threshold : new String[] {"1", "5"}) {
            try (Connection connection = connect("prepareThreshold", threshold)) {
                for (int turn = 0; turn < 6; turn++) {
                    expectState(DIVISION_BY_ZERO, () -> number(connection, "SELECT 1 / ?::int", 0));
                    expectState("42P01", () -> number(connection, "SELECT * FROM no_such_table WHERE 1 = ?", 0));
                    expectState("42601", () -> number(connection, "SELEC ?", 0));
                    expect(number(connection, "SELECT ?::int", turn), (long) turn, "after errors");
                }
            }
        }
    }

    private static void transactionsAndSavepoints() throws Exception {
        withTable("jdbc_tx", "n int", () -> {
            try (Connection connection = connect("prepareThreshold", "1")) {
                connection.setAutoCommit(false);
                for (int turn = 0; turn < 5; turn++) {
                    execute(connection, "INSERT INTO jdbc_tx VALUES (1)");
                    Savepoint savepoint = connection.setSavepoint();
                    expectState(DIVISION_BY_ZERO, () -> number(connection, "SELECT 1 / ?::int", 0));
                    expectState("25P02", () -> number(connection, "SELECT 1"));
                    connection.rollback(savepoint);
                    expect(number(connection, "SELECT count(*) FROM jdbc_tx"), turn + 1L, "inside");
                    connection.commit();
                    execute(connection, "INSERT INTO jdbc_tx VALUES (2)");
                    connection.rollback();
                }
                expect(number(connection, "SELECT count(*) FROM jdbc_tx"), 5L, "rows");
                connection.commit();
            }
        });
    }

    private static void autosave() throws Exception {
        try (Connection connection = connect("autosave", "always", "prepareThreshold", "1")) {
            connection.setAutoCommit(false);
            for (int turn = 0; turn < 5; turn++) {
                expectState(DIVISION_BY_ZERO, () -> number(connection, "SELECT 1 / ?::int", 0));
                expect(number(connection, "SELECT ?::int", turn), (long) turn, "after autosave");
            }
            connection.commit();
        }
    }

    private static void batches() throws Exception {
        for (String rewrite : new String[] {"false", "true"}) {
            withTable("jdbc_batch", "n int primary key, t text", () -> {
                try (Connection connection = connect("prepareThreshold", "1", "reWriteBatchedInserts", rewrite)) {
                    insertBatch(connection, 0, 2000);
                    expect(number(connection, "SELECT sum(n) FROM jdbc_batch"), 1999000L, "rewrite=" + rewrite);
                    expect(number(connection, "SELECT sum(length(t)) FROM jdbc_batch"), 99000L, "rewrite=" + rewrite);
                    // A batch with a duplicate in it leaves nothing behind, and the connection usable.
                    expectState("23505", () -> insertBatch(connection, 1990, 2500));
                    expect(number(connection, "SELECT count(*) FROM jdbc_batch"), 2000L, "after a bad batch");
                }
            });
        }
    }

    private static void insertBatch(Connection connection, int from, int to) throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_batch VALUES (?, ?)")) {
            for (int n = from; n < to; n++) {
                insert.setInt(1, n);
                insert.setString(2, "t".repeat(n % 100));
                insert.addBatch();
            }
            expect(insert.executeBatch().length, to - from, "batch results");
        }
    }

    private static void batchOfDifferentStatements() throws Exception {
        withTable("jdbc_mixed", "n int", () -> {
            try (Connection connection = connect("prepareThreshold", "1");
                    Statement batch = connection.createStatement()) {
                for (int n = 0; n < 200; n++) {
                    batch.addBatch(n % 2 == 0 ? "INSERT INTO jdbc_mixed VALUES (" + n + ")" : "UPDATE jdbc_mixed SET n = n + 1");
                }
                int[] counts = batch.executeBatch();
                expect(counts[0] + counts[199], 101, "row counts");
                expect(number(connection, "SELECT count(*) FROM jdbc_mixed"), 100L, "rows");
            }
        });
    }

    private static void generatedKeys() throws Exception {
        withTable("jdbc_keys", "id serial primary key, t text", () -> {
            try (Connection connection = connect("prepareThreshold", "1");
                    PreparedStatement insert =
                            connection.prepareStatement("INSERT INTO jdbc_keys (t) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int n = 1; n <= 100; n++) {
                    insert.setString(1, "t" + n);
                    insert.addBatch();
                }
                insert.executeBatch();
                ResultSet keys = insert.getGeneratedKeys();
                for (int n = 1; n <= 100; n++) {
                    keys.next();
                    expect(keys.getInt(1), n, "key");
                }
            }
        });
    }

    private static void cursorsByFetchSize() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1")) {
            connection.setAutoCommit(false);
            try (PreparedStatement first = connection.prepareStatement("SELECT n, repeat('y', 50) FROM generate_series(1, ?) n");
                    PreparedStatement second = connection.prepareStatement("SELECT n * 2 FROM generate_series(1, ?) n")) {
                first.setFetchSize(70);
                second.setFetchSize(30);
                first.setInt(1, 3000);
                second.setInt(1, 3000);
                // Two portals open at once.
                try (ResultSet one = first.executeQuery();
                        ResultSet two = second.executeQuery()) {
                    for (int n = 1; n <= 3000; n++) {
                        one.next();
                        two.next();
                        expect(one.getInt(1), n, "first");
                        expect(two.getInt(1), n * 2, "second");
                    }
                    expect(one.next() || two.next(), false, "more rows");
                }
            }
            connection.commit();
        }
    }

    private static void metaData() throws Exception {
        withTable("jdbc_meta", "id int primary key, t varchar(20) not null", () -> {
            try (Connection connection = connect("prepareThreshold", "1")) {
                for (int turn = 0; turn < 3; turn++) {
                    try (ResultSet columns = connection.getMetaData().getColumns(null, "public", "jdbc_meta", null)) {
                        columns.next();
                        expect(columns.getString("COLUMN_NAME"), "id", "first column");
                        columns.next();
                        expect(columns.getInt("COLUMN_SIZE"), 20, "size of the second");
                    }
                    try (PreparedStatement statement = connection.prepareStatement("SELECT t, id FROM jdbc_meta WHERE id = ?")) {
                        expect(statement.getParameterMetaData().getParameterTypeName(1), "int4", "parameter");
                        expect(statement.getMetaData().getColumnTypeName(1), "varchar", "column");
                    }
                }
            }
        });
    }

    private static void copyInAndOut() throws Exception {
        withTable("jdbc_copy", "n int, t text", () -> {
            try (Connection connection = connect("prepareThreshold", "1")) {
                StringBuilder lines = new StringBuilder();
                for (int n = 0; n < 20000; n++) {
                    lines.append(n).append("\tline ").append(n).append('\n');
                }
                var copier = connection.unwrap(PGConnection.class).getCopyAPI();
                expect(copier.copyIn("COPY jdbc_copy FROM STDIN", new StringReader(lines.toString())), 20000L, "copied in");
                ByteArrayOutputStream out = new ByteArrayOutputStream();
                copier.copyOut("COPY (SELECT * FROM jdbc_copy ORDER BY n) TO STDOUT", out);
                expect(out.toString(StandardCharsets.UTF_8).equals(lines.toString()), true, "the same comes out");
                expectState("22P02", () -> copier.copyIn("COPY jdbc_copy FROM STDIN", new StringReader("x\ty\n".repeat(10000))));
                expect(number(connection, "SELECT count(*) FROM jdbc_copy"), 20000L, "after a bad copy");
                var unfinished = copier.copyIn("COPY jdbc_copy FROM STDIN");
                unfinished.writeToCopy("1\ta\n".getBytes(StandardCharsets.UTF_8), 0, 4);
                unfinished.cancelCopy();
                expect(number(connection, "SELECT count(*) FROM jdbc_copy"), 20000L, "after a cancelled copy");
            }
        });
    }

    private static void timeLimitsAndCancel() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1");
                Connection neighbour = connect("prepareThreshold", "1")) {
            for (int turn = 0; turn < 3; turn++) {
                try (PreparedStatement sleep = connection.prepareStatement("SELECT pg_sleep(30)")) {
                    sleep.setQueryTimeout(1);
                    expectState(QUERY_CANCELED, sleep::executeQuery);
                }
                expect(number(connection, "SELECT ?::int", turn), (long) turn, "after a time limit");
                try (Statement sleep = connection.createStatement()) {
                    Thread canceller = new Thread(() -> {
                        try {
                            Thread.sleep(300);
                            sleep.cancel();
                        } catch (InterruptedException | SQLException error) {
                            throw new IllegalStateException(error);
                        }
                    });
                    canceller.start();
                    expectState(QUERY_CANCELED, () -> sleep.executeQuery("SELECT pg_sleep(30)"));
                    canceller.join();
                }
                expect(number(connection, "SELECT ?::int", turn), (long) turn, "after a cancel");
                expect(number(neighbour, "SELECT ?::int FROM pg_sleep(0.1)", turn), (long) turn, "the neighbour");
            }
        }
    }

    private static void notifications() throws Exception {
        try (Connection listener = connect();
                Connection speaker = connect()) {
            execute(listener, "LISTEN jdbc_news");
            for (int n = 0; n < 20; n++) {
                execute(speaker, "NOTIFY jdbc_news, 'number " + n + "'");
            }
            int heard = 0;
            while (heard < 20) {
                PGNotification[] some = listener.unwrap(PGConnection.class).getNotifications(10_000);
                if (some == null || some.length == 0) {
                    throw new AssertionError("heard only " + heard);
                }
                for (PGNotification one : some) {
                    expect(one.getParameter(), "number " + heard, "payload");
                    heard++;
                }
            }
        }
    }

    private static void trackedParametersFollowTheClient() throws Exception {
        try (Connection first = connect("ApplicationName", "first");
                Connection second = connect("ApplicationName", "second")) {
            first.setClientInfo("ApplicationName", "first, renamed");
            for (int turn = 0; turn < 10; turn++) {
                expect(text(first, "SHOW application_name"), "first, renamed", "first");
                expect(text(second, "SHOW application_name"), "second", "second");
                expect(text(first, "SHOW DateStyle"), "ISO, MDY", "DateStyle");
            }
        }
    }

    private static String text(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    private static void readOnlyTransactions() throws Exception {
        withTable("jdbc_readonly", "n int", () -> {
            try (Connection connection = connect("prepareThreshold", "1")) {
                connection.setAutoCommit(false);
                connection.setReadOnly(true);
                expectState("25006", () -> execute(connection, "INSERT INTO jdbc_readonly VALUES (1)"));
                connection.rollback();
                connection.setReadOnly(false);
                execute(connection, "INSERT INTO jdbc_readonly VALUES (1)");
                connection.commit();
                expect(number(connection, "SELECT count(*) FROM jdbc_readonly"), 1L, "rows");
                connection.commit();
            }
        });
    }

    /** The driver sets the level for its session, so only session mode keeps it with its client. */
    private static void isolationLevelOfTheSession() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1")) {
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            expect(text(connection, "SHOW transaction_isolation"), "serializable", "level");
        }
        try (Connection connection = connect("prepareThreshold", "1")) {
            expect(text(connection, "SHOW transaction_isolation"), "read committed", "the next client's level");
        }
    }

    private static void largeValuesBothWays() throws Exception {
        byte[] value = new byte[10_000_000];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) (i * 31);
        }
        try (Connection connection = connect("prepareThreshold", "1")) {
            for (int turn = 0; turn < 3; turn++) {
                try (PreparedStatement statement = connection.prepareStatement("SELECT ?::bytea")) {
                    statement.setBytes(1, value);
                    try (ResultSet row = statement.executeQuery()) {
                        row.next();
                        expect(Arrays.equals(row.getBytes(1), value), true, "10 MB came back");
                    }
                }
            }
        }
    }

    private static void manyThreads() throws Exception {
        List<Callable<Void>> tasks = new ArrayList<>();
        for (int thread = 0; thread < 40; thread++) {
            long mark = thread * 1000L;
            tasks.add(() -> {
                try (Connection connection = connect("prepareThreshold", "1")) {
                    for (int turn = 0; turn < 20; turn++) {
                        expect(number(connection, "SELECT ?::int8 + ?::int", mark, turn), mark + turn, "thread " + mark);
                    }
                }
                return null;
            });
        }
        inThreads(tasks);
    }

    private static void manyThreadsWithTransactions() throws Exception {
        withTable("jdbc_counter", "id int primary key, n int", () -> {
            try (Connection connection = connect()) {
                execute(connection, "INSERT INTO jdbc_counter SELECT i, 0 FROM generate_series(0, 9) i");
            }
            List<Callable<Void>> tasks = new ArrayList<>();
            for (int thread = 0; thread < 30; thread++) {
                int mark = thread;
                tasks.add(() -> {
                    countUp(mark);
                    return null;
                });
            }
            inThreads(tasks);
            try (Connection connection = connect()) {
                expect(number(connection, "SELECT sum(n) FROM jdbc_counter"), 300L, "counted");
            }
        });
    }

    private static void countUp(int mark) throws SQLException {
        try (Connection connection = connect("prepareThreshold", "1");
                PreparedStatement update = connection.prepareStatement("UPDATE jdbc_counter SET n = n + 1 WHERE id = ?")) {
            connection.setAutoCommit(false);
            for (int turn = 0; turn < 10; turn++) {
                execute(connection, "SET LOCAL pgweir.mark = '" + mark + "'");
                update.setInt(1, (mark + turn) % 10);
                expect(update.executeUpdate(), 1, "rows updated");
                expect(text(connection, "SHOW pgweir.mark"), String.valueOf(mark), "whose transaction");
                connection.commit();
            }
        }
    }

    private static void inThreads(List<Callable<Void>> tasks) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(tasks.size());
        try {
            for (Future<Void> future : threads.invokeAll(tasks, CHECK_SECONDS_MAX, TimeUnit.SECONDS)) {
                future.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    private static void transactionBlocksAreRefused() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            try {
                number(connection, "SELECT 1");
            } catch (SQLException expected) {
                return;
            }
        }
        throw new AssertionError("a transaction block was accepted");
    }

    /** Runs a check in a thread of its own, so that a stuck one does not hold up the rest. */
    private static void check(String name, String[] modes, Check check) {
        if (!Arrays.asList(modes).contains(MODE)) {
            return;
        }
        ExecutorService thread = Executors.newSingleThreadExecutor(task -> {
            Thread daemon = new Thread(task);
            daemon.setDaemon(true);
            return daemon;
        });
        try {
            thread.submit(() -> {
                check.run();
                return null;
            }).get(CHECK_SECONDS_MAX, TimeUnit.SECONDS);
            System.out.println("ok " + name);
        } catch (Exception error) {
            failed++;
            Throwable cause = error.getCause() == null ? error : error.getCause();
            System.out.println("FAIL " + name + ": " + String.valueOf(cause).replaceAll("\\s+", " "));
            cause.printStackTrace();
        } finally {
            thread.shutdownNow();
        }
    }

    /** Runs every check of this mode. */
    public static void main(String[] arguments) {
        check("valuesComeBackAsSent", EVERY_MODE, JdbcChecks::valuesComeBackAsSent);
        check("preparedStatementsOfManyClients", EVERY_MODE, JdbcChecks::preparedStatementsOfManyClients);
        check("moreStatementsThanThePoolerKeeps", EVERY_MODE, JdbcChecks::moreStatementsThanThePoolerKeeps);
        check("smallStatementCacheEvicts", EVERY_MODE, JdbcChecks::smallStatementCacheEvicts);
        check("everyQueryMode", EVERY_MODE, JdbcChecks::everyQueryMode);
        check("anErrorLeavesTheConnectionUsable", EVERY_MODE, JdbcChecks::anErrorLeavesTheConnectionUsable);
        check("transactionsAndSavepoints", WITH_TRANSACTIONS, JdbcChecks::transactionsAndSavepoints);
        check("autosave", WITH_TRANSACTIONS, JdbcChecks::autosave);
        check("batches", WITH_TRANSACTIONS, JdbcChecks::batches);
        check("batchOfDifferentStatements", WITH_TRANSACTIONS, JdbcChecks::batchOfDifferentStatements);
        check("generatedKeys", WITH_TRANSACTIONS, JdbcChecks::generatedKeys);
        check("cursorsByFetchSize", WITH_TRANSACTIONS, JdbcChecks::cursorsByFetchSize);
        check("metaData", EVERY_MODE, JdbcChecks::metaData);
        check("copyInAndOut", EVERY_MODE, JdbcChecks::copyInAndOut);
        check("timeLimitsAndCancel", EVERY_MODE, JdbcChecks::timeLimitsAndCancel);
        check("notifications", new String[] {"session"}, JdbcChecks::notifications);
        check("trackedParametersFollowTheClient", EVERY_MODE, JdbcChecks::trackedParametersFollowTheClient);
        check("readOnlyTransactions", WITH_TRANSACTIONS, JdbcChecks::readOnlyTransactions);
        check("isolationLevelOfTheSession", new String[] {"session"}, JdbcChecks::isolationLevelOfTheSession);
        check("largeValuesBothWays", EVERY_MODE, JdbcChecks::largeValuesBothWays);
        check("manyThreads", EVERY_MODE, JdbcChecks::manyThreads);
        check("manyThreadsWithTransactions", WITH_TRANSACTIONS, JdbcChecks::manyThreadsWithTransactions);
        check("transactionBlocksAreRefused", new String[] {"statement"}, JdbcChecks::transactionBlocksAreRefused);
        System.exit(failed > 0 ? 1 : 0);
    }
}
