package osdtest

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"github.com/libopenstorage/openstorage/pkg/auth"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Issuer is who signs the tokens that count.
const Issuer = "osdtest"

// tokenLife is that of TokenFile's: a demonstration's weekend, not a secret for ever.
const tokenLife = 30 * 24 * time.Hour

func (s *Server) prepareTokens() error {
	text, err := os.ReadFile(s.path(secretFile))
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(rand.Text())
		err = os.WriteFile(s.path(secretFile), text, 0o600)
	}
	if err != nil {
		return err
	}
	s.secret = text
	if s.verify, err = auth.NewJwtAuth(&auth.JwtAuthConfig{SharedSecret: text}); err != nil {
		return err
	}
	token := s.Token("haulback", "system.user", tokenLife)
	return os.WriteFile(s.path(tokenFile), []byte(token+"\n"), 0o600)
}

// TokenFile has a token of "haulback", role system.user; it is empty without Auth.
func (s *Server) TokenFile() string {
	if !s.cfg.Auth {
		return ""
	}
	return s.path(tokenFile)
}

// Token is a JWT of this server's secret. A system.admin is in the group that may all.
// A life below 0 has ended.
func (s *Server) Token(sub, role string, life time.Duration) string {
	return Sign(s.secret, s.Claims(sub, role, life))
}

// Claims are those of Token, to be changed and signed by a test.
func (s *Server) Claims(sub, role string, life time.Duration) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": Issuer, "sub": sub, "name": sub, "email": sub + "@example.com", "roles": []string{role},
		"iat": now.Add(min(0, life) - time.Minute).Unix(), "exp": now.Add(life).Unix(),
	}
	if role == "system.admin" {
		claims["groups"] = []string{api.AdminGroup}
	}
	return claims
}

// Sign makes a JWT by HS256 (RFC 7515, RFC 7518 section 3.2).
func Sign(secret []byte, claims map[string]any) string {
	body, err := json.Marshal(claims)
	if err != nil {
		panic("osdtest: claims are plain values: " + err.Error())
	}
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(body)
	sum := hmac.New(sha256.New, secret)
	sum.Write([]byte(text))
	return text + "." + encode(sum.Sum(nil))
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// admit finds out who asks, and whether they may, in the reference server's words.
func (s *Server) admit(ctx context.Context, service, method string) (context.Context, error) {
	if s.verify == nil {
		return ctx, nil
	}
	user, err := s.user(ctx)
	if err != nil {
		return ctx, err
	}
	if may(user.Claims.Roles, service, method) {
		return auth.ContextSaveUserInfo(ctx, user), nil
	}
	if user.IsGuest() {
		return ctx, status.Error(codes.PermissionDenied, "Access denied without authentication token")
	}
	return ctx, status.Errorf(codes.PermissionDenied, "Access to %s.%s denied: no matching roles found", service, method)
}

func (s *Server) user(ctx context.Context) (*auth.UserInfo, error) {
	header := ""
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md["authorization"]) > 0 {
		header = md["authorization"][0]
	}
	if header == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.quirks.NoGuest {
			return nil, status.Error(codes.PermissionDenied, "Access denied without authentication token")
		}
		return auth.NewGuestUser(), nil
	}
	kind, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(kind, "bearer") || token == "" {
		return nil, status.Error(codes.Unauthenticated, "Invalid or missing authentication token")
	}
	issuer, err := auth.TokenIssuer(token)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "Unable to obtain token issuer from authorization token")
	}
	if issuer != Issuer {
		return nil, status.Errorf(codes.Unauthenticated, "%s is not a trusted issuer", issuer)
	}
	claims, err := s.verify.AuthenticateToken(ctx, token)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, "Unable to authenticate token")
	}
	return &auth.UserInfo{Username: s.verify.Username(claims), Claims: *claims}, nil
}

// roles are the reference server's: patterns of SERVICE.METHOD.
var roles = map[string][]string{
	"system.admin": {"*.*"},
	"system.view":  {"*.*enumerate*", "*.inspect*", "*.stats", "*.capacityusage", "identity.*"},
	"system.user":  {"volume.*", "mountattach.*", "node.inspect*", "node.enumerate*", "identity.*"},
	"system.guest": {"volume.*", "mountattach.*", "node.inspect*", "node.enumerate*", "identity.version"},
}

func may(has []string, service, method string) bool {
	name := strings.ToLower(fmt.Sprintf("%s.%s", service, method))
	for _, role := range has {
		for _, pattern := range roles[role] {
			if ok, _ := path.Match(pattern, name); ok {
				return true
			}
		}
	}
	return false
}
