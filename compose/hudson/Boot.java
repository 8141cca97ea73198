/** Hudson of 2011 looks for its JVM by the names of vendors of that time, which no option sets. */
public class Boot {
    public static void main(String[] arguments) throws Exception {
        System.setProperty("java.vm.vendor", "Sun Microsystems Inc.");
        System.setProperty("java.vendor", "Sun Microsystems Inc.");
        Main.main(arguments);
    }
}
