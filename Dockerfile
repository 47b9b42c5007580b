# The container. As a function of package type Image it needs `ImageConfig: { Command: [ingress] }`, or ticker, or worker.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin tidehook

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/tidehook /usr/local/bin/tidehook
WORKDIR /data
EXPOSE 8888
ENTRYPOINT ["/usr/local/bin/tidehook"]
CMD ["start"]
