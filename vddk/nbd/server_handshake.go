package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxSkippedOption is what is read and thrown away before ERR_TOO_BIG.
const maxSkippedOption = 1 << 20

// optionError is an error reply to an option; negotiation goes on.
type optionError struct {
	code uint32
	text string
}

// Error is the text that the client gets.
func (e *optionError) Error() string { return e.text }

func noSuchExport(name string) string {
	return fmt.Sprintf("there is no export %.64q here; list those there are with nbdinfo --list", name)
}

// serverOption is an option that was read whole.
type serverOption struct {
	code uint32
	data []byte
}

// handshake negotiates until the client has chosen an export; every other end
// is an error.
func (c *serverConn) handshake() error {
	if err := c.greet(); err != nil {
		return err
	}
	for c.export == nil {
		o, err := c.readOption()
		if refused, ok := err.(*optionError); ok {
			err = c.replyOption(o.code, refused.code, []byte(refused.text))
		} else if err == nil {
			err = c.option(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// greet is everything before the first option.
func (c *serverConn) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicInit)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(c.br, answer[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if unknown := flags &^ (flagClientFixedNewstyle | flagClientNoZeroes); unknown != 0 {
		return fmt.Errorf("unknown client flags %#x", unknown)
	}
	c.noZeroes = flags&flagClientNoZeroes != 0
	return nil
}

// readOption reads one option. An *optionError is for one that was skipped.
func (c *serverConn) readOption() (o serverOption, err error) {
	var head [16]byte
	if _, err := io.ReadFull(c.br, head[:]); err != nil {
		return o, err
	}
	if m := binary.BigEndian.Uint64(head[:]); m != magicOption {
		return o, fmt.Errorf("option begins with %#x", m)
	}
	o.code = binary.BigEndian.Uint32(head[8:])
	length := binary.BigEndian.Uint32(head[12:])
	switch {
	case length > maxSkippedOption:
		return o, fmt.Errorf("option %d of %d bytes", o.code, length)
	case length > maxOptionLen:
		if _, err := c.br.Discard(int(length)); err != nil {
			return o, err
		}
		return o, &optionError{repErrTooBig, fmt.Sprintf("an option of %d bytes; %d are taken", length, maxOptionLen)}
	}
	o.data = make([]byte, length)
	_, err = io.ReadFull(c.br, o.data)
	return o, err
}

// option answers o. An error ends the connection.
func (c *serverConn) option(o serverOption) error {
	if o.code == optExportName {
		return c.exportName(string(o.data))
	}
	err := c.answer(o)
	if refused, ok := errors.AsType[*optionError](err); ok {
		return c.replyOption(o.code, refused.code, []byte(refused.text))
	}
	return err
}

func (c *serverConn) answer(o serverOption) error {
	if c.server.cfg.TLS != nil && !c.secure && o.code != optStartTLS && o.code != optAbort {
		return &optionError{repErrTLSReqd, "this server wants TLS first"}
	}
	switch o.code {
	case optAbort:
		if err := c.replyOption(o.code, repAck, nil); err != nil {
			return err
		}
		return errServerEnd
	case optStartTLS:
		return c.startTLS(o)
	case optList:
		return c.list(o)
	case optInfo, optGo:
		return c.infoOrGo(o)
	case optStructuredReply:
		return c.chooseStructured(o)
	case optListMetaContext, optSetMetaContext:
		return c.metaContext(o)
	}
	return &optionError{repErrUnsup, fmt.Sprintf("option %d is not known here", o.code)}
}

func (c *serverConn) replyOption(option, reply uint32, data []byte) error {
	b := make([]byte, 0, 20+len(data))
	b = binary.BigEndian.AppendUint64(b, magicOptReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, reply)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := c.conn.Write(append(b, data...))
	return err
}

func noData(o serverOption) error {
	if len(o.data) != 0 {
		return &optionError{repErrInvalid, fmt.Sprintf("option %d takes no data, got %d bytes", o.code, len(o.data))}
	}
	return nil
}

// startTLS goes on over TLS.
func (c *serverConn) startTLS(o serverOption) error {
	if err := noData(o); err != nil {
		return err
	}
	switch {
	case c.server.cfg.TLS == nil:
		return &optionError{repErrPolicy, "this server has no certificate"}
	case c.secure:
		return &optionError{repErrInvalid, "TLS is on already"}
	case c.br.Buffered() > 0:
		return fmt.Errorf("%d bytes between STARTTLS and the TLS handshake", c.br.Buffered())
	}
	if err := c.replyOption(o.code, repAck, nil); err != nil {
		return err
	}
	conn := tls.Server(c.raw, c.server.cfg.TLS)
	if err := conn.HandshakeContext(c.group.ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.conn = conn
	c.br.Reset(conn)
	c.secure = true // nothing was negotiated before: no option was taken
	return nil
}

func (c *serverConn) chooseStructured(o serverOption) error {
	if err := noData(o); err != nil {
		return err
	}
	c.structured = true
	return c.replyOption(o.code, repAck, nil)
}

// list names the exports there are.
func (c *serverConn) list(o serverOption) error {
	if err := noData(o); err != nil {
		return err
	}
	for _, name := range c.server.names() {
		x := c.server.lookup(name)
		if x == nil { // removed meanwhile
			continue
		}
		b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		b = append(append(b, name...), x.Description...)
		if err := c.replyOption(o.code, repServer, b); err != nil {
			return err
		}
	}
	return c.replyOption(o.code, repAck, nil)
}

func (s *Server) lookup(name string) *serverExport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exports[name]
}

// exportName chooses in the old way: a refusal is the end of the connection.
func (c *serverConn) exportName(name string) error {
	if c.server.cfg.TLS != nil && !c.secure {
		return errors.New("export chosen without TLS")
	}
	if refused := c.server.enter(c, name); refused != nil {
		return refused
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(c.export.size))
	b = binary.BigEndian.AppendUint16(b, c.export.transmissionFlags(c.structured))
	if !c.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := c.conn.Write(b)
	return err
}

// infoOrGo tells about an export; after GO it is chosen.
func (c *serverConn) infoOrGo(o serverOption) error {
	name, wanted, err := parseInfo(o.data)
	if err != nil {
		return err
	}
	x := c.server.lookup(name)
	if o.code == optGo {
		if refused := c.server.enter(c, name); refused != nil {
			return refused
		}
		x = c.export
	}
	if x == nil {
		return &optionError{repErrUnknown, noSuchExport(name)}
	}
	for _, info := range x.infos(wanted, c.structured) {
		if err := c.replyOption(o.code, repInfo, info); err != nil {
			return err
		}
	}
	return c.replyOption(o.code, repAck, nil)
}

// infos are the export and its block sizes, and what else is asked for.
func (x *serverExport) infos(wanted []uint16, structured bool) [][]byte {
	be := binary.BigEndian
	export := be.AppendUint16(nil, infoExport)
	export = be.AppendUint64(export, uint64(x.size))
	export = be.AppendUint16(export, x.transmissionFlags(structured))
	sizes := be.AppendUint16(nil, infoBlockSize)
	for _, n := range []int64{x.MinBlock, x.PreferredBlock, x.MaxRequest} {
		sizes = be.AppendUint32(sizes, uint32(n))
	}
	infos := [][]byte{export, sizes}
	for _, w := range wanted {
		switch w {
		case infoName:
			infos = append(infos, append(be.AppendUint16(nil, infoName), x.Name...))
		case infoDescription:
			if x.Description != "" {
				infos = append(infos, append(be.AppendUint16(nil, infoDescription), x.Description...))
			}
		}
	}
	return infos
}
