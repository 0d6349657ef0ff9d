// pgJDBC: the steps of tests/clients.rs; and metadata, fetch sizes, batches, autosave, query time-outs.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;

public class Jdbc {
    private static String url;

    private static Connection connect(String certificate, String... settings) throws SQLException {
        Properties properties = new Properties();
        for (int i = 0; i < settings.length; i += 2) {
            properties.put(settings[i], settings[i + 1]);
        }
        // URL: postgresql://user:password@host:port/database?sslmode=..&sslrootcert=..
        String[] parts = url.split("//|:|@|\\?");
        properties.put("user", parts[2]);
        properties.put("password", parts[3]);
        properties.put("sslmode", "verify-full");
        properties.put("sslrootcert", certificate);
        return DriverManager.getConnection("jdbc:postgresql://" + parts[4] + ":" + parts[5], properties);
    }

    private static long one(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet result = statement.executeQuery(sql)) {
            result.next();
            return result.getLong(1);
        }
    }

    private static void check(boolean right, Object what) {
        if (!right) {
            throw new AssertionError(what);
        }
    }

    /** Runs a statement that must be cancelled; returns its SQLSTATE. */
    private static String repeatedlyCancel(Connection connection, String sql) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                // A cancel that comes before the statement does nothing, so it is sent until one has hit.
                while (true) {
                    try {
                        Thread.sleep(100);
                        statement.cancel();
                    } catch (InterruptedException | SQLException ended) {
                        return;
                    }
                }
            });
            canceller.start();
            try {
                statement.execute(sql);
                return "not cancelled";
            } catch (SQLException error) {
                return error.getSQLState();
            } finally {
                canceller.interrupt();
                canceller.join();
            }
        }
    }

    private static void drain(ResultSet result) throws SQLException {
        while (result.next()) {
            result.getString(1);
        }
        result.close();
    }

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        String certificate = url.replaceAll(".*sslrootcert=", "");
        try {
            connect(arguments[1]);
            check(false, "another certificate was accepted");
        } catch (SQLException error) {
            check(error.getMessage().contains("SSL error"), error);
        }
        Connection connection = connect(certificate);
        System.out.println("connected: verify-full, another certificate refused");

        // prepareThreshold is 5: from then on it has a name on the server.
        long rows = 0;
        long total = 0;
        for (int number = 0; number < 120; number++) {
            String sql = "select id + " + number + " * 16 + ? from customers where id = ?";
            for (int n = 1; n <= 6; n++) {
                try (PreparedStatement statement = connection.prepareStatement(sql)) {
                    statement.setInt(1, n);
                    statement.setInt(2, n);
                    ResultSet result = statement.executeQuery();
                    result.next();
                    total += result.getInt(1);
                    rows += 1;
                }
            }
        }
        System.out.println("prepared: " + rows + " rows, sum " + total);

        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("insert into kept values ('a committed')");
            connection.commit();
            statement.executeUpdate("insert into kept values ('rolled back')");
            connection.rollback();
        }
        connection.setAutoCommit(true);
        System.out.println("transactions: committed " + one(connection, "select count(*) from kept where step = 'a committed'")
            + ", rolled back " + one(connection, "select count(*) from kept where step = 'rolled back'"));

        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int n = 1; n <= 500; n++) {
            lines.append(n).append("\tname ").append(n).append('\n');
        }
        System.out.println("copied in: " + copy.copyIn("COPY copied FROM STDIN", new StringReader(lines.toString())));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        long copied = copy.copyOut("COPY approved_rows TO STDOUT", out);
        long sum = Arrays.stream(out.toString("UTF-8").trim().split("\n")).mapToLong(Long::parseLong).sum();
        System.out.println("copied out: " + copied + " rows, sum " + sum);

        System.out.println("cancelled: " + repeatedlyCancel(connection, "select pg_sleep(60)"));
        System.out.println("withdrawn: " + repeatedlyCancel(connection, "drop table ignored_rows"));

        String notice;
        try (PreparedStatement statement = connection.prepareStatement("update approved_rows set n = n + ? returning n")) {
            statement.setInt(1, 1000);
            ResultSet result = statement.executeQuery();
            rows = 0;
            total = 0;
            while (result.next()) {
                rows += 1;
                total += result.getInt(1);
            }
            SQLWarning warning = statement.getWarnings();
            notice = warning.getMessage().split(": ")[0];
        }
        System.out.println("approved: " + rows + " rows, sum " + total);

        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("insert into kept values ('b before')");
            Savepoint savepoint = connection.setSavepoint();
            try {
                statement.execute("drop table denied_rows");
            } catch (PSQLException error) {
                var told = error.getServerErrorMessage();
                check(told.getDetail().contains("it is still needed"), told);
                System.out.println("denied: " + error.getSQLState() + " " + told.getMessage());
            }
            connection.rollback(savepoint);
            statement.executeUpdate("insert into kept values ('c after')");
            connection.commit();

            statement.setFetchSize(7);
            total = 0;
            ResultSet result = statement.executeQuery("select id from customers order by id");
            while (result.next()) {
                total += result.getInt(1);
            }
            check(total == 5050, total);
            connection.commit();
        }
        connection.setAutoCommit(true);
        System.out.println("notice: " + notice);

        DatabaseMetaData metadata = connection.getMetaData();
        drain(metadata.getTables(null, null, "%", null));
        drain(metadata.getColumns(null, "public", "%", null));
        drain(metadata.getPrimaryKeys(null, "public", "customers"));
        drain(metadata.getImportedKeys(null, "public", "orders"));
        drain(metadata.getCrossReference(null, "public", "customers", null, "public", "orders"));
        drain(metadata.getIndexInfo(null, "public", "customers", false, false));
        drain(metadata.getTablePrivileges(null, "public", "%"));
        drain(metadata.getColumnPrivileges(null, "public", "customers", "%"));
        drain(metadata.getSchemas());
        drain(metadata.getCatalogs());
        drain(metadata.getTypeInfo());
        drain(metadata.getUDTs(null, null, "%", null));
        drain(metadata.getFunctions(null, null, "now%"));
        drain(metadata.getFunctionColumns(null, null, "now%", "%"));
        drain(metadata.getProcedures(null, null, "%"));
        drain(metadata.getClientInfoProperties());
        drain(metadata.getBestRowIdentifier(null, "public", "customers", 0, false));
        drain(metadata.getVersionColumns(null, "public", "customers"));
        check(metadata.getSQLKeywords().length() > 0 && metadata.getMaxColumnNameLength() == 63, metadata);
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("select pg_sleep(30)");
            check(false, "no time-out");
        } catch (SQLException error) {
            check("57014".equals(error.getSQLState()), error);
        }

        // Autosave sets a savepoint before each statement and goes back to it by itself; simple mode and
        // rewritten batches send other messages for the same calls.
        for (String[] mode : new String[][] {
            {"autosave", "always"}, {"preferQueryMode", "simple"}, {"reWriteBatchedInserts", "true"}, {"preferQueryMode", "extendedCacheEverything"}
        }) {
            try (Connection other = connect(certificate, mode[0], mode[1])) {
                other.setAutoCommit(false);
                other.createStatement().execute("create temp table batch (n int, name text)");
                try (PreparedStatement statement = other.prepareStatement("insert into batch values (?, ?)")) {
                    for (int n = 1; n <= 300; n++) {
                        statement.setInt(1, n);
                        statement.setString(2, "name " + n);
                        statement.addBatch();
                    }
                    statement.executeBatch();
                }
                if (mode[0].equals("autosave")) {
                    try {
                        other.createStatement().execute("select 1 / 0");
                    } catch (SQLException error) {
                        check("22012".equals(error.getSQLState()), error);
                    }
                }
                check(one(other, "select sum(n) from batch") == 45150, mode[1]);
                other.rollback();
            }
        }
        System.out.println("usable: " + one(connection, "select count(*) from customers"));
        connection.close();
    }
}
