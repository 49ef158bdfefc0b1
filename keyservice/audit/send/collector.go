package send

import (
	"context"
	"errors"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"kmsfs/keyservice/audit"
)

// logsPath is where collectors take logs, unless a URL says otherwise.
const logsPath = "/v1/logs"

// collectorSink is a collector of OpenTelemetry logs, by OTLP over HTTP. A record's body is the whole record.
type collectorSink struct {
	exporter *otlploghttp.Exporter
	logger   log.Logger
	gathered gathered
}

// gathered are records as the exporter takes them.
type gathered struct{ records []sdklog.Record }

// Enabled, OnEmit, Shutdown and ForceFlush make it a processor, which gathers what a logger emits.
func (*gathered) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

// OnEmit gathers a record.
func (g *gathered) OnEmit(_ context.Context, r *sdklog.Record) error {
	g.records = append(g.records, r.Clone())
	return nil
}

// Shutdown has nothing to do.
func (*gathered) Shutdown(context.Context) error { return nil }

// ForceFlush has nothing to do.
func (*gathered) ForceFlush(context.Context) error { return nil }

func openCollector(ctx context.Context, endpoint, logName string) (Sink, error) {
	to, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	if to.Path == "" || to.Path == "/" {
		to.Path = logsPath
	}
	exporter, err := otlploghttp.New(ctx, otlploghttp.WithEndpointURL(to.String()), otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: false}),
		otlploghttp.WithCompression(otlploghttp.GzipCompression))
	if err != nil {
		return nil, err
	}
	c := &collectorSink{exporter: exporter}
	provider := sdklog.NewLoggerProvider(
		sdklog.WithProcessor(&c.gathered), sdklog.WithAttributeCountLimit(-1), sdklog.WithAttributeValueLengthLimit(-1),
		sdklog.WithResource(resource.NewSchemaless(attribute.String("service.name", "kmsfs"), attribute.String("kmsfs.log", logName))))
	c.logger = provider.Logger("kmsfs/keyservice/audit")
	return c, nil
}

// Send waits for the collector to say that it has the records.
func (c *collectorSink) Send(ctx context.Context, records []*audit.Entry) error {
	c.gathered.records = c.gathered.records[:0]
	for _, e := range records {
		c.logger.Emit(ctx, recordOf(e))
	}
	if len(c.gathered.records) != len(records) {
		return errors.New("records were not made ready to be sent")
	}
	return c.exporter.Export(ctx, c.gathered.records)
}

// recordOf is a record with attributes by the names that OpenTelemetry has for them.
func recordOf(e *audit.Entry) (r log.Record) {
	r.SetTimestamp(e.EventTime)
	r.SetEventName(e.EventName)
	r.SetBody(attribute.StringValue(string(e.Line)))
	level := severityOf(e)
	r.SetSeverity([]log.Severity{notice: log.SeverityInfo, refused: log.SeverityWarn, failed: log.SeverityError}[level])
	r.SetSeverityText([]string{notice: "INFO", refused: "WARN", failed: "ERROR"}[level])
	by, program := e.Principal()
	r.AddAttributes(attribute.String("user.name", by), attribute.Int64("kmsfs.sequence", int64(e.Sequence)))
	for name, value := range map[string]string{"error.type": e.ErrorCode, "process.executable.path": program, "file.path": e.AdditionalEventData.FilePath} {
		if value != "" {
			r.AddAttributes(attribute.String(name, value))
		}
	}
	return r
}

// Close ends connections.
func (c *collectorSink) Close() error { return c.exporter.Shutdown(context.Background()) }
