# One static executable and nothing else: no shell, no package manager, not root.
#
#   docker build -t quittance .
#   docker run -v quittance:/var/lib/quittance -v ./config.toml:/etc/quittance/config.toml:ro -p 8080:8080 quittance
#
# In the configuration: listener.address = "0.0.0.0:8080", store.path = "/var/lib/quittance", secrets from the environment
# or from files of the user 65532.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# packaging/static holds the commands, so that what a test runs by hand is what runs here.
RUN packaging/static /out

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENV QUITTANCE_CONFIG=/etc/quittance/config.toml
VOLUME /var/lib/quittance
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/quittance", "check", "--live"]
ENTRYPOINT ["/usr/bin/quittance"]
CMD ["serve"]
