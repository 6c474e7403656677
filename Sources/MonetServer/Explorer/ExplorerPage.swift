import HTTPTypes
import Hummingbird
import MonetFoundation

/// The explorer's page: its files, which are part of the program.
enum ExplorerPage {
    /// The scripts in the order in which each needs only earlier ones.
    static let scripts: [(name: String, bytes: [UInt8])] = [
        ("dom.js", PackageResources.dom_js), ("save.js", PackageResources.save_js),
        ("api.js", PackageResources.api_js), ("address.js", PackageResources.address_js),
        ("basket.js", PackageResources.basket_js), ("experts.js", PackageResources.experts_js),
        ("dossier.js", PackageResources.dossier_js), ("write.js", PackageResources.write_js),
        ("edit.js", PackageResources.edit_js), ("results.js", PackageResources.results_js),
        ("graph-data.js", PackageResources.graph_data_js),
        ("graph-drawing.js", PackageResources.graph_drawing_js),
        ("graph-panel.js", PackageResources.graph_panel_js), ("graph.js", PackageResources.graph_js),
        ("main.js", PackageResources.main_js),
    ]
    static let style = ("explorer.css", PackageResources.explorer_css)
    static let page = PackageResources.index_html

    private static var files: [(path: String, type: String, bytes: [UInt8])] {
        [("/", "text/html", page), ("/" + style.0, "text/css", style.1)]
            + scripts.map { ("/" + $0.name, "text/javascript", $0.bytes) }
    }

    static var paths: [String] { files.map(\.path) }

    /// Scripts come from the program alone, styles may be inline (reports are shown in frames that inherit this), and
    /// nothing is fetched from elsewhere.
    private static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        + "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    /// The page and its files, for everyone: what they show needs the key.
    static var endpoints: [Endpoint] {
        files.map { file in
            Endpoint(
                method: .get, path: file.path, summary: "The explorer.", answers: [file.type], isOpen: true
            ) { _ in
                Response(
                    status: .ok,
                    headers: [
                        .contentType: file.type + "; charset=utf-8", .contentSecurityPolicy: policy,
                        .cacheControl: "no-cache",
                    ], body: ResponseBody(byteBuffer: ByteBuffer(bytes: file.bytes)))
            }
        }
    }
}
