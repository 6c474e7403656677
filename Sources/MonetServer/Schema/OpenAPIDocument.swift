import HTTPTypes
import MonetFoundation

/// The OpenAPI 3.1 document of some operations.
struct OpenAPIDocument {
    let endpoints: [Endpoint]
    let needsKey: Bool
    let version: String

    var json: JSONValue {
        var paths: [(path: String, operations: [JSONValue.Member])] = []
        for endpoint in endpoints {
            let operation = JSONValue.Member(endpoint.method.rawValue.lowercased(), self.operation(endpoint))
            if let place = paths.firstIndex(where: { $0.path == endpoint.path }) {
                paths[place].operations.append(operation)
            } else {
                paths.append((endpoint.path, [operation]))
            }
        }
        return [
            "openapi": "3.1.0",
            "info": [
                "title": "Monet", "version": .string(version),
                "description":
                    "OpenAI's interface for a Monet model and its edited versions, and the explorer of its experts.",
            ],
            "paths": .object(paths.map { .init($0.path, .object($0.operations)) }),
            "components": [
                "schemas": ["Error": Self.error],
                "securitySchemes": ["key": ["type": "http", "scheme": "bearer"]],
            ],
        ]
    }

    private static let error: JSONValue = [
        "type": "object", "required": ["error"],
        "properties": [
            "error": [
                "type": "object", "required": ["message", "type", "param", "code"],
                "properties": [
                    "message": ["type": "string"], "type": ["type": "string"],
                    "param": ["type": ["string", "null"]], "code": ["type": ["string", "null"]],
                ],
            ]
        ],
    ]

    private func operation(_ endpoint: Endpoint) -> JSONValue {
        var members: [JSONValue.Member] = [.init("summary", .string(endpoint.summary))]
        if !endpoint.parameters.isEmpty {
            members.append(
                .init(
                    "parameters",
                    .array(
                        endpoint.parameters.map {
                            [
                                "name": .string($0.name), "in": .string($0.place.rawValue),
                                "required": .bool($0.place == .path), "schema": $0.schema.json,
                                "description": .string($0.description),
                            ]
                        })))
        }
        var statuses = endpoint.errors
        if endpoint.body != nil || !endpoint.parameters.isEmpty {
            statuses.append(.badRequest)
        }
        if let body = endpoint.body {
            members.append(
                .init(
                    "requestBody", ["required": true, "content": ["application/json": ["schema": body.json]]])
            )
            statuses += [.contentTooLarge, .unsupportedMediaType]
        }
        if needsKey, !endpoint.isOpen {
            members.append(.init("security", [["key": []]]))
            statuses.append(.unauthorized)
        }
        statuses += [.forbidden, .tooManyRequests, .serviceUnavailable]
        let content = JSONValue.object(
            endpoint.answers.map { type in
                .init(type, ["schema": type == "application/json" ? ["type": "object"] : ["type": "string"]])
            })
        var answers: [JSONValue.Member] = [.init("200", ["description": "The answer.", "content": content])]
        for status in Set(statuses).sorted(by: { $0.code < $1.code }) {
            answers.append(
                .init(
                    "\(status.code)",
                    [
                        "description": .string(status.reasonPhrase),
                        "content": [
                            "application/json": ["schema": ["$ref": "#/components/schemas/Error"]]
                        ],
                    ]))
        }
        members.append(.init("responses", .object(answers)))
        return .object(members)
    }
}
